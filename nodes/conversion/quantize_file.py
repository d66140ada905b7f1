"""The node that quantizes from file to file, with one layer in memory at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ...quant.calibration import CalibrationStatistics
from ...quant.conversion.convert import convert
from ...quant.conversion.observed_input import working_bytes
from ...quant.conversion.report import ConversionReport
from ...quant.errors import FoundryError
from ...quant.files.resumable import describe_kept
from ...quant.planning import Recipe, automatic_recipe, make_plan, require_whole, take_inventory
from ...quant.reports.view import conversion_view
from ...quant.rounding import NEED_MOMENTS
from ...quant.sources import open_source
from ..bridge.models import compute_device
from ..bridge.progress import progress_bar, show_text
from ..calibration.fitting import offering_one_that_fits
from ..files import folders
from ..foundry_node import FoundryNode
from ..inputs.any_architecture import any_architecture_input
from ..inputs.layout import chosen_layout, layout_input
from ..inputs.oldest_comfyui import THIS, comfyui_input, for_chosen_comfyui
from ..inputs.sockets import START, RecipeSocket, StatisticsSocket
from ..inputs.target import Target, card_input, target_inputs, why_not_target
from ..prompts.validation import constant_inputs
from ..reports.errors import refused
from ..reports.saved import check_saved
from ..reports.shown import shown
from ..sources.load_source_model import completing_input

_NODE = "NVFP4FoundryQuantizeFile"


class QuantizeFile(FoundryNode):
    """Convert a model file to a checkpoint, one layer at a time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id=_NODE,
            display_name="Quantize File to NVFP4",
            category=START,
            description=(
                "Converts a model file to a checkpoint file without loading the model: choose the "
                "model and run. Memory use stays at a few layers, however large the model is."
            ),
            search_aliases=[
                "nvfp4 convert",
                "fp4",
                "fp8",
                "float8",
                "4-bit",
                "int8",
                "quantise",
                "shrink",
                "compress file",
                "quantize checkpoint",
                "quantize gguf",
                "low memory",
            ],
            inputs=_inputs(),
            outputs=[
                io.String.Output(display_name="path"),
                io.String.Output(display_name="report"),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model_file: str | None) -> bool | str:
        """Report an invalid source or target before the queue starts."""
        inputs = constant_inputs()
        second = inputs.get("complete_from")
        try:
            # ComfyUI itself refuses a second file that is not in the list
            if model_file is not None and not folders.missing_source(second):
                layout = chosen_layout(inputs.get("layout"))
                path, second = folders.source_path(model_file), folders.completing_path(second)
                with open_source(path, second, layout=layout) as source:
                    require_whole(take_inventory(source))
        except (FileNotFoundError, FoundryError) as error:
            return refused(str(error))
        return why_not_target(inputs.get("file_name"))

    @classmethod
    def fingerprint_inputs(
        cls, model_file: str, complete_from: str | None = None, **others: Any
    ) -> list[float]:
        """Return when the files changed, and how often the saved file was deleted."""
        lost = Target.of(_NODE, others, model_file).times_lost()
        return [*folders.modified(model_file, complete_from), lost]

    @classmethod
    def execute(
        cls,
        model_file: str,
        file_name: str,
        folder: str,
        if_exists: str,
        any_architecture: bool,
        recipe: Recipe | None = None,
        statistics: CalibrationStatistics | None = None,
        complete_from: str | None = None,
        whole_checkpoint: bool = False,
        model_card: bool = False,
        layout: str | None = None,
        comfyui: str = THIS,
    ) -> io.NodeOutput:
        """Write the checkpoint and return its path and report."""
        recipe = for_chosen_comfyui(recipe or automatic_recipe(), comfyui)
        target = Target(_NODE, file_name, folder, if_exists, model_file)
        file, second = folders.source_path(model_file), folders.completing_path(complete_from)
        opened = open_source(
            file, second, meant_for=recipe.architectures, layout=chosen_layout(layout)
        )
        with opened as source, offering_one_that_fits(source):
            plan = make_plan(recipe, take_inventory(source), any_architecture=any_architecture)
            beside = source.rest.nbytes if whole_checkpoint and source.rest else 0
            size = plan.bytes_after + beside
            path, overwrite = target.resolve(size, model_file)
            with _telling_what_is_kept(path):
                report = convert(
                    source,
                    plan,
                    path,
                    statistics=statistics,
                    overwrite=overwrite,
                    device=compute_device(working_bytes(recipe.rounding, statistics)),
                    whole_file=whole_checkpoint,
                    resume=recipe.rounding in NEED_MOMENTS,
                    on_progress=progress_bar(),
                )
        target.written(path)
        return _output(path, report, statistics, model_card=model_card)


@contextmanager
def _telling_what_is_kept(target: Path) -> Iterator[None]:
    """If the run is interrupted or fails, show which finished layers stay on the disk."""
    try:
        yield
    except BaseException:  # ComfyUI's interruption is no `Exception`
        if kept := describe_kept(target):
            text = f"{kept}; queue again to go on from them, or delete what you do not need"
            logging.warning("NVFP4 Foundry: %s", text)
            show_text(text)
        raise


def _output(
    path: Path,
    report: ConversionReport,
    statistics: CalibrationStatistics | None,
    *,
    model_card: bool,
) -> io.NodeOutput:
    lines = check_saved(path, model_card=model_card)
    view = conversion_view(report, statistics, lines)
    return io.NodeOutput(str(path), view.text, ui=shown(view, saved=[path]))


def _inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "model_file",
            options=folders.source_files(),
            tooltip="The diffusion model or text encoder to convert: safetensors, shards or GGUF.",
        ),
        RecipeSocket.Input(
            "recipe",
            optional=True,
            tooltip="From Select NVFP4 Preset or any other node that outputs a recipe. Without it, "
            "the preset for the model is used.",
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
            advanced=True,
            tooltip="For full checkpoints: also copy the text encoder and the VAE, so that the "
            "result loads with Load Checkpoint. Save it to checkpoints.",
        ),
        card_input(),
        layout_input(),
        comfyui_input(),
    ]
