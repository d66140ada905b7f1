"""The node that quantizes a MODEL or the text encoder of a CLIP in the graph."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...quant.calibration import CalibrationStatistics
from ...quant.conversion.compile_report import calibration_warnings
from ...quant.conversion.convert import QuantizedModel
from ...quant.planning import Plan
from ...quant.reports.view import LayerView, conversion_view, plan_view
from ..bridge.applied_loras import loras_before
from ..bridge.model_or_clip import is_clip, opened
from ..bridge.model_source import ModelSource
from ..bridge.models import emulate_native_gpu, model_from_checkpoint
from ..bridge.running_prompt import outputs_in_use
from ..bridge.text_encoder_source import TextEncoderSource, clip_from_checkpoint
from ..calibration.fitting import offering_one_that_fits
from ..foundry_node import FoundryNode
from ..inputs.sockets import START, CheckpointSocket, PlanSocket, StatisticsSocket
from ..reports.shown import shown
from .promise import PromisedCheckpoint

_MODEL, _CHECKPOINT, _REPORT = range(3)
_AS_HERE, _AS_BLACKWELL = "as this machine runs it", "as a Blackwell GPU runs it"
_NO_PREVIEW = (
    "this CLIP was not loaded from text encoder files, so there is no quantized CLIP to preview: "
    "save the checkpoint to text_encoders and load it with Load CLIP"
)
_LATER = (
    "Save NVFP4 Checkpoint encodes the layers one by one while it writes the file, and reports "
    "their errors. To encode them here, connect MODEL for a preview, or report"
)
_NOT_MADE = (
    "Quantize Model to NVFP4 made no MODEL, because nothing was connected to it in this workflow; "
    "queue the workflow again"
)
_MODEL_OR_CLIP = io.MatchType.Template("model", [io.Model, io.Clip])


class QuantizeModel(FoundryNode):
    """Quantize a model as planned; return it for a preview, and its checkpoint to save."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryQuantizeModel",
            display_name="Quantize Model to NVFP4",
            category=START,
            description=(
                "Quantizes a model or a text encoder as planned. Connect CHECKPOINT to Save NVFP4 "
                "Checkpoint, which encodes one layer at a time while it writes the file. Connect "
                "MODEL to sample with the result before you save it: it is loaded exactly as "
                "ComfyUI loads the saved file, and held in memory beside the original."
            ),
            search_aliases=[
                "nvfp4",
                "fp4",
                "fp8",
                "float8",
                "4-bit",
                "int8",
                "quantise",
                "shrink model",
                "compress model",
                "convert to nvfp4",
                "quantize text encoder",
                "compress clip",
                "quantize t5",
                "bake lora",
                "merge lora",
            ],
            inputs=[
                io.MatchType.Input(
                    "model",
                    _MODEL_OR_CLIP,
                    tooltip="The MODEL or CLIP that the plan was made for.",
                ),
                PlanSocket.Input("plan", tooltip="From Plan Layers or Auto Mix."),
                io.Combo.Input(
                    "preview",
                    options=[_AS_HERE, _AS_BLACKWELL],
                    default=_AS_HERE,
                    tooltip="How the MODEL computes. A Blackwell GPU also rounds the inputs of "
                    "NVFP4 layers. Other machines can emulate that, but sample more slowly. The "
                    "CHECKPOINT is the same either way, and so is a CLIP.",
                ),
                StatisticsSocket.Input(
                    "statistics",
                    display_name="calibration",
                    optional=True,
                    tooltip="The calibration, from Calibration Result or Load Calibration. Without "
                    "it, the checkpoint has no static input scales. Text encoders need none.",
                ),
            ],
            outputs=[
                io.MatchType.Output(_MODEL_OR_CLIP, display_name="MODEL"),
                CheckpointSocket.Output(display_name="CHECKPOINT"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        """Return what has to be made, so that the node runs again when more of it is connected."""
        return _chosen_way().value

    @classmethod
    def execute(
        cls,
        model: Any,
        plan: Plan,
        preview: str,
        statistics: CalibrationStatistics | None = None,
    ) -> io.NodeOutput:
        """Return the quantized MODEL or CLIP, the checkpoint and the report."""
        way, loras = _chosen_way(), loras_before(cls.hidden)
        quantized: Any = ExecutionBlocker(_NOT_MADE)
        notes: list[str] = []
        with opened(model, loras, plan=plan) as source, offering_one_that_fits(source):
            promise = PromisedCheckpoint.of(model, source, plan, statistics, loras)
            if way is _Way.PROMISE:
                view = _planned(promise, source)
                return io.NodeOutput(quantized, promise, view.text, ui=shown(view))
            if way is _Way.REPORT:
                view = conversion_view(promise.report(source), statistics)
                return io.NodeOutput(quantized, promise, view.text, ui=shown(view))
            made = promise.in_memory(source)
            if way is _Way.MODEL:
                quantized = _loaded(made, source, model)
        if way is _Way.MODEL and preview == _AS_BLACKWELL and not is_clip(model):
            notes.append(_describe_emulation(emulate_native_gpu(quantized, made)))
        view = conversion_view(made.report, statistics, notes)
        return io.NodeOutput(quantized, replace(promise, made=made), view.text, ui=shown(view))


class _Way(Enum):
    """What the node makes, by the outputs that lead to a node that will run."""

    MODEL = "the checkpoint in memory, and the MODEL"
    MEMORY = "the checkpoint in memory"
    REPORT = "the report alone"
    PROMISE = "nothing: the layers are encoded when they are saved"


def _chosen_way() -> _Way:
    used = outputs_in_use()
    if used is None or _MODEL in used:
        return _Way.MODEL
    if _REPORT in used and _CHECKPOINT in used:
        return _Way.MEMORY  # so that the layers are not encoded twice
    return _Way.PROMISE if _CHECKPOINT in used else _Way.REPORT


def _planned(promise: PromisedCheckpoint, source: ModelSource) -> LayerView:
    """Check everything that can be checked before a layer is read, and return the view of it."""
    job = promise.job(source)
    plan = replace(job.plan, warnings=(*job.plan.warnings, *calibration_warnings(job)))
    notes = [_LATER, *source.notes, *(f"LoRA {lora}" for lora in source.loras)]
    return plan_view(plan, notes)


def _loaded(checkpoint: QuantizedModel, source: ModelSource, model: Any) -> Any:
    """Return the checkpoint as ComfyUI loads its file; a blocker where it is no file yet."""
    if not isinstance(source, TextEncoderSource):
        return model_from_checkpoint(checkpoint, model)
    return clip_from_checkpoint(checkpoint, source, model) or ExecutionBlocker(_NO_PREVIEW)


def _describe_emulation(layers: int) -> str:
    if not layers:
        return (
            "preview: as a Blackwell GPU runs it; there is nothing to emulate for this model here"
        )
    return (
        f"preview: EMULATED, as a Blackwell GPU runs it; the inputs of {layers} layers are rounded"
    )
