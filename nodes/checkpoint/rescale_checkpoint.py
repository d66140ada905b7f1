"""The node that gives a quantized file other static input scales."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics
from ...quant.checkpoint import rescale_checkpoint
from ...quant.reports.rescale import describe_rescale
from ...quant.sources import open_tensors
from ..bridge.progress import progress_bar
from ..files import folders
from ..foundry_node import FoundryNode
from ..inputs.input_scale import chosen_policy, input_scale_options, modified, why_not
from ..inputs.sockets import FILES, StatisticsSocket
from ..inputs.target import Target, target_inputs, why_not_target
from ..prompts.validation import constant_inputs
from ..reports.errors import refused
from ..reports.saved import check_saved
from ..reports.shown import shown_text

_NODE = "NVFP4FoundryRescaleCheckpoint"


class RescaleCheckpoint(FoundryNode):
    """Add, change or remove the static input scales of a quantized file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id=_NODE,
            display_name="Rescale Checkpoint",
            category=FILES,
            description=(
                "Adds static input scales from a calibration to a quantized checkpoint from this "
                "or another tool, or removes them. Nothing is quantized again: all other tensors "
                "are copied unchanged."
            ),
            search_aliases=[
                "nvfp4 input_scale",
                "fp8 scale",
                "calibrate checkpoint",
                "static scale",
            ],
            inputs=[
                io.Combo.Input(
                    "model_file",
                    options=folders.quantized_files(),
                    tooltip="A checkpoint with NVFP4 or float8 layers.",
                ),
                io.DynamicCombo.Input(
                    "input_scale",
                    options=input_scale_options(),
                    tooltip="How to derive the scales. 'dynamic' removes the static scales.",
                ),
                StatisticsSocket.Input(
                    "statistics",
                    display_name="calibration",
                    optional=True,
                    tooltip="The calibration of the model that the checkpoint was made from.",
                ),
                *target_inputs(),
            ],
            outputs=[
                io.String.Output(display_name="path"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model_file: str | None, *, input_scale: Any = None) -> bool | str:
        """Report an invalid source or target before the queue starts."""
        inputs = constant_inputs()
        problem = folders.missing_source(model_file) or why_not(inputs)
        return refused(problem) if problem else why_not_target(inputs.get("file_name"))

    @classmethod
    def fingerprint_inputs(
        cls, model_file: str, input_scale: Any = None, **others: Any
    ) -> list[float]:
        """Return when the files changed, and how often the saved file was deleted."""
        lost = Target.of(_NODE, others, model_file).times_lost()
        return [*folders.modified(model_file), modified(input_scale), lost]

    @classmethod
    def execute(
        cls,
        model_file: str,
        file_name: str,
        folder: str,
        if_exists: str,
        input_scale: dict[str, Any] | None = None,
        statistics: CalibrationStatistics | None = None,
    ) -> io.NodeOutput:
        """Write the checkpoint and return its path and report."""
        path = folders.source_path(model_file)
        with open_tensors(path) as file:
            size = sum(info.nbytes for info in file.tensors.values())
        where = Target(_NODE, file_name, folder, if_exists, model_file)
        target, overwrite = where.resolve(size, model_file)
        report = rescale_checkpoint(
            path,
            chosen_policy(input_scale),
            statistics,
            target,
            overwrite=overwrite,
            on_progress=progress_bar(),
        )
        where.written(target)
        text = describe_rescale(report)
        shown = "\n".join([*check_saved(target), "", text])
        ui = shown_text(f"Input scales of {target.name}", shown, saved=[target])
        return io.NodeOutput(str(target), text, ui=ui)
