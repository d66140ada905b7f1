"""The node that quantizes from file to file, with one layer in memory at a time."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.calibration import CalibrationStatistics
from ...quant.conversion.convert import convert
from ...quant.conversion.observed_input import working_bytes
from ...quant.errors import FoundryError
from ...quant.planning import Recipe, make_plan, take_inventory
from ...quant.reports.conversion import describe_conversion
from ...quant.sources import open_source
from ..bridge.models import compute_device, progress_bar
from ..files import folders
from ..inputs.any_architecture import any_architecture_input
from ..inputs.sockets import CATEGORY, RecipeSocket, StatisticsSocket
from ..inputs.target import resolve_target, target_inputs, validate_target
from ..sources.load_source_model import completing_input


class QuantizeFile(io.ComfyNode):
    """Convert a model file to a checkpoint, one layer at a time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryQuantizeFile",
            display_name="Quantize File",
            category=CATEGORY,
            description=(
                "Converts a model file to a checkpoint file without loading the model. Memory use "
                "stays at a few layers, however large the model is."
            ),
            search_aliases=[
                "nvfp4 convert",
                "fp4",
                "fp8",
                "float8",
                "4-bit",
                "int8",
                "compress file",
                "quantize checkpoint",
                "low memory",
            ],
            inputs=[
                io.Combo.Input(
                    "model_file",
                    options=folders.source_files(),
                    tooltip="The diffusion model or text encoder to convert: safetensors, shards "
                    "or GGUF.",
                ),
                RecipeSocket.Input(
                    "recipe",
                    tooltip="From Select NVFP4 Preset or any other node that outputs a recipe.",
                ),
                StatisticsSocket.Input(
                    "statistics",
                    display_name="calibration",
                    optional=True,
                    tooltip="The calibration of this exact model, for static input scales.",
                ),
                *target_inputs(),
                any_architecture_input(),
                completing_input(),
                io.Boolean.Input(
                    "whole_checkpoint",
                    default=False,
                    optional=True,
                    tooltip="For full checkpoints: also copy the text encoder and the VAE, so that "
                    "the result loads with Load Checkpoint. Save it to checkpoints.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="path"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        model_file: str | None,
        file_name: str | None,
        folder: str | None,
        if_exists: str | None,
        complete_from: str | None = None,
    ) -> bool | str:
        """Report an invalid source or target before the queue starts."""
        try:
            second = folders.completing_path(complete_from)
            if model_file is not None:
                with open_source(folders.source_path(model_file), second):
                    pass
        except (FileNotFoundError, FoundryError) as error:
            return str(error)
        return validate_target(file_name, folder, if_exists)

    @classmethod
    def fingerprint_inputs(
        cls, model_file: str, complete_from: str | None = None, **others: Any
    ) -> list[float]:
        """Return when the files changed, so that changed files are converted again."""
        return folders.modified(model_file, complete_from)

    @classmethod
    def execute(
        cls,
        model_file: str,
        recipe: Recipe,
        file_name: str,
        folder: str,
        if_exists: str,
        any_architecture: bool,
        statistics: CalibrationStatistics | None = None,
        complete_from: str | None = None,
        whole_checkpoint: bool = False,
    ) -> io.NodeOutput:
        """Write the checkpoint and return its path and report."""
        second = folders.completing_path(complete_from)
        file = folders.source_path(model_file)
        with open_source(file, second, meant_for=recipe.architectures) as source:
            plan = make_plan(recipe, take_inventory(source), any_architecture=any_architecture)
            beside = source.rest.nbytes if whole_checkpoint and source.rest else 0
            size = plan.bytes_after + beside
            path, overwrite = resolve_target(file_name, folder, if_exists, size)
            report = convert(
                source,
                plan,
                path,
                statistics=statistics,
                overwrite=overwrite,
                device=compute_device(working_bytes(recipe.rounding, statistics)),
                whole_file=whole_checkpoint,
                on_progress=progress_bar(),
            )
        text = describe_conversion(report, every_layer=False)
        return io.NodeOutput(str(path), text, ui=ui.PreviewText(f"saved {path}\n\n{text}"))
