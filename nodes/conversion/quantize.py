"""Quantizing: in the graph, to a file, and straight from file to file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ...quant.calibration import CalibrationStatistics
from ...quant.conversion.convert import QuantizedModel, convert, quantize_to_memory, save_model
from ...quant.conversion.observed_input import working_bytes
from ...quant.errors import FoundryError
from ...quant.planning import Plan, Recipe, make_plan, take_inventory
from ...quant.reports.conversion import conversion_headline, describe_conversion
from ...quant.sources import open_source
from ..bridge.applied_loras import loras_before
from ..bridge.model_source import ModelSource
from ..bridge.models import compute_device, emulate_native_gpu, model_from_checkpoint, progress_bar
from ..files import folders
from ..inputs.sockets import CATEGORY, CheckpointSocket, PlanSocket, RecipeSocket, StatisticsSocket
from ..inputs.target import resolve_target, target_inputs, validate_target
from ..sources.load_source import completing_input

_AS_HERE, _AS_BLACKWELL = "as this machine runs it", "as a Blackwell GPU runs it"


class Quantize(io.ComfyNode):
    """MODEL, plan and statistics become a quantized MODEL and a checkpoint to save."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryQuantize",
            display_name="Quantize",
            category=CATEGORY,
            description=(
                "Quantizes a model as planned. The MODEL it returns is loaded exactly as ComfyUI "
                "loads the saved file, so you can sample with it before saving. Holds the "
                "quantized model in memory; for models larger than that use Quantize File."
            ),
            search_aliases=["nvfp4", "convert to nvfp4", "fp4", "quantize model"],
            inputs=[
                io.Model.Input("model", tooltip="The model the plan was made for."),
                PlanSocket.Input("plan", tooltip="From Plan Layers."),
                io.Combo.Input(
                    "preview",
                    options=[_AS_HERE, _AS_BLACKWELL],
                    default=_AS_HERE,
                    tooltip="How the MODEL computes. A Blackwell GPU also rounds what goes into "
                    "NVFP4 layers; other machines can emulate that, somewhat slower. The "
                    "CHECKPOINT is the same.",
                ),
                StatisticsSocket.Input(
                    "statistics",
                    optional=True,
                    tooltip="From Calibration Result or Load Calibration. Without them the "
                    "activation scales are left to the runtime.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL"),
                CheckpointSocket.Output(display_name="CHECKPOINT"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        plan: Plan,
        preview: str,
        statistics: CalibrationStatistics | None = None,
    ) -> io.NodeOutput:
        """Quantize."""
        with ModelSource(model, loras_before(cls.hidden)) as source:
            checkpoint = quantize_to_memory(
                source,
                plan,
                statistics=statistics,
                device=compute_device(working_bytes(plan.recipe.rounding, statistics)),
                on_progress=progress_bar(),
            )
        text = describe_conversion(checkpoint.report, every_layer=False)
        quantized = model_from_checkpoint(checkpoint, model)
        if preview == _AS_BLACKWELL:
            text = f"{_describe_emulation(emulate_native_gpu(quantized, checkpoint))}\n\n{text}"
        return io.NodeOutput(quantized, checkpoint, text, ui=ui.PreviewText(text))


def _describe_emulation(layers: int) -> str:
    if not layers:
        return "preview: as a Blackwell GPU runs it; nothing to emulate for this model here"
    return f"preview: EMULATED, as a Blackwell GPU runs it; inputs of {layers} layers are rounded"


class SaveCheckpoint(io.ComfyNode):
    """Write a quantized checkpoint to ComfyUI's folders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundrySaveCheckpoint",
            display_name="Save NVFP4 Checkpoint",
            category=CATEGORY,
            description=(
                "Saves a quantized checkpoint that stock ComfyUI loads with Load Diffusion Model, "
                "or a text encoder that it loads with Load CLIP. The file appears complete or not "
                "at all."
            ),
            search_aliases=["save nvfp4", "export checkpoint", "save diffusion model"],
            inputs=[
                CheckpointSocket.Input(
                    "checkpoint", tooltip="From Quantize or Quantize Text Encoder."
                ),
                *target_inputs(),
            ],
            outputs=[io.String.Output(display_name="path")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, file_name: str | None, folder: str | None, if_exists: str | None
    ) -> bool | str:
        """Say before the queue starts when the target is impossible."""
        return validate_target(file_name, folder, if_exists)

    @classmethod
    def execute(
        cls, checkpoint: QuantizedModel, file_name: str, folder: str, if_exists: str
    ) -> io.NodeOutput:
        """Save."""
        size = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
        path, overwrite = resolve_target(file_name, folder, if_exists, size)
        save_model(checkpoint, path, overwrite=overwrite, on_progress=progress_bar())
        report = replace(checkpoint.report, target=path.name)
        text = f"saved {path}\n\n{conversion_headline(report)}"
        return io.NodeOutput(str(path), ui=ui.PreviewText(text))


class QuantizeFile(io.ComfyNode):
    """File in, checkpoint out, one layer in memory at a time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryQuantizeFile",
            display_name="Quantize File",
            category=CATEGORY,
            description=(
                "Converts a model file to a checkpoint file without loading the model: memory "
                "stays at a few layers, whatever its size."
            ),
            search_aliases=["nvfp4 convert", "convert file", "quantize checkpoint", "low memory"],
            inputs=[
                io.Combo.Input(
                    "model_file",
                    options=folders.source_files(),
                    tooltip="The diffusion model or text encoder to convert: safetensors, shards "
                    "or GGUF.",
                ),
                RecipeSocket.Input("recipe", tooltip="From Select NVFP4 Preset."),
                StatisticsSocket.Input(
                    "statistics",
                    optional=True,
                    tooltip="Calibration of this model, for static activation scales.",
                ),
                *target_inputs(),
                io.Boolean.Input(
                    "any_architecture",
                    default=False,
                    advanced=True,
                    tooltip="Use the preset even on a model it was not written for.",
                ),
                completing_input(),
                io.Boolean.Input(
                    "whole_checkpoint",
                    default=False,
                    optional=True,
                    tooltip="For full checkpoints: copy the text encoder and VAE too, so that the "
                    "result loads with Load Checkpoint. Save it to checkpoints.",
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
        """Say before the queue starts when source or target are impossible."""
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
        """Convert again when a file changed."""
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
        """Convert."""
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
