"""The node that quantizes a MODEL in the graph."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ...quant.calibration import CalibrationStatistics
from ...quant.conversion.convert import quantize_to_memory
from ...quant.conversion.observed_input import working_bytes
from ...quant.planning import Plan
from ...quant.reports.conversion import describe_conversion
from ..bridge.applied_loras import loras_before
from ..bridge.model_source import ModelSource
from ..bridge.models import compute_device, emulate_native_gpu, model_from_checkpoint, progress_bar
from ..inputs.sockets import CATEGORY, CheckpointSocket, PlanSocket, StatisticsSocket

_AS_HERE, _AS_BLACKWELL = "as this machine runs it", "as a Blackwell GPU runs it"


class QuantizeModel(io.ComfyNode):
    """Quantize a MODEL as planned; return it for a preview, and its checkpoint to save."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryQuantizeModel",
            display_name="Quantize",
            category=CATEGORY,
            description=(
                "Quantizes a model as planned. It returns a MODEL that is loaded exactly as "
                "ComfyUI loads the saved file, so you can sample with it before you save. It holds "
                "the quantized model in memory. If your memory is too small, use Quantize File."
            ),
            search_aliases=[
                "nvfp4",
                "fp4",
                "fp8",
                "float8",
                "4-bit",
                "int8",
                "compress model",
                "convert to nvfp4",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model that the plan was made for."),
                PlanSocket.Input("plan", tooltip="From Plan Layers or Auto Mix."),
                io.Combo.Input(
                    "preview",
                    options=[_AS_HERE, _AS_BLACKWELL],
                    default=_AS_HERE,
                    tooltip="How the MODEL computes. A Blackwell GPU also rounds the inputs of "
                    "NVFP4 layers. Other machines can emulate that, but sample more slowly. The "
                    "CHECKPOINT is the same either way.",
                ),
                StatisticsSocket.Input(
                    "statistics",
                    display_name="calibration",
                    optional=True,
                    tooltip="The calibration, from Calibration Result or Load Calibration. Without "
                    "it, the checkpoint has no static input scales.",
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
        """Return the quantized MODEL, the checkpoint and the report."""
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
        return (
            "preview: as a Blackwell GPU runs it; there is nothing to emulate for this model here"
        )
    return (
        f"preview: EMULATED, as a Blackwell GPU runs it; the inputs of {layers} layers are rounded"
    )
