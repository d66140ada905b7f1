"""The nodes that plan and quantize the text encoder of a CLIP."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ...quant.conversion.convert import quantize_to_memory
from ...quant.planning import Plan, Recipe, make_plan, take_inventory
from ...quant.reports.conversion import describe_conversion
from ...quant.reports.plan import describe_plan
from ..bridge.models import compute_device, progress_bar
from ..bridge.text_encoder_source import TextEncoderSource, clip_from_checkpoint
from ..inputs.any_architecture import any_architecture_input
from ..inputs.sockets import CATEGORY, CheckpointSocket, PlanSocket, RecipeSocket

_NO_PREVIEW = (
    "this CLIP was not loaded from text encoder files, so there is no quantized CLIP to preview: "
    "save the checkpoint to text_encoders and load it with Load CLIP"
)


def _encoder_input() -> io.Input:
    return io.String.Input(
        "encoder",
        default="",
        tooltip="Which encoder to use if the CLIP holds several: t5xxl, llama, ... Leave it empty "
        "for the largest.",
    )


class PlanTextEncoder(io.ComfyNode):
    """Apply a recipe to a text encoder and show the plan."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryPlanTextEncoder",
            display_name="Plan Text Encoder",
            category=CATEGORY,
            description=(
                "Shows which format each layer of a text encoder would get and why, and the file "
                "size before and after. Nothing is converted."
            ),
            search_aliases=["nvfp4 clip", "t5 nvfp4", "fp8 clip", "quantize text encoder"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder to quantize, from Load CLIP."),
                RecipeSocket.Input(
                    "recipe", tooltip="From Select NVFP4 Preset: t5-xxl, qwen2.5-vl or smart."
                ),
                _encoder_input(),
                any_architecture_input(),
            ],
            outputs=[
                PlanSocket.Output(display_name="PLAN"),
                io.String.Output(display_name="table"),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, clip: Any, recipe: Recipe, encoder: str, any_architecture: bool
    ) -> io.NodeOutput:
        """Return the plan and its table."""
        with TextEncoderSource(clip, encoder.strip()) as source:
            plan = make_plan(recipe, take_inventory(source), any_architecture=any_architecture)
            text = describe_plan(plan, source.notes)
        return io.NodeOutput(plan, text, ui=ui.PreviewText(text))


class QuantizeTextEncoder(io.ComfyNode):
    """Quantize the text encoder of a CLIP; return it for a preview, and its checkpoint."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryQuantizeTextEncoder",
            display_name="Quantize Text Encoder",
            category=CATEGORY,
            description=(
                "Quantizes a text encoder as planned. Save the checkpoint to text_encoders and "
                "load it with Load CLIP. ComfyUI computes text encoders in 16 or 32 bits, whatever "
                "their format, so this saves memory, not time. Calibration is not needed."
            ),
            search_aliases=[
                "nvfp4 clip",
                "fp4 clip",
                "fp8 clip",
                "t5 nvfp4",
                "compress clip",
                "convert text encoder",
            ],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP that the plan was made for."),
                PlanSocket.Input("plan", tooltip="From Plan Text Encoder."),
                _encoder_input(),
            ],
            outputs=[
                io.Clip.Output(display_name="CLIP"),
                CheckpointSocket.Output(display_name="CHECKPOINT"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    def execute(cls, clip: Any, plan: Plan, encoder: str) -> io.NodeOutput:
        """Return the quantized CLIP, the checkpoint and the report."""
        with TextEncoderSource(clip, encoder.strip()) as source:
            checkpoint = quantize_to_memory(
                source, plan, device=compute_device(), on_progress=progress_bar()
            )
            quantized = clip_from_checkpoint(checkpoint, source, clip)
        text = describe_conversion(checkpoint.report, every_layer=False)
        return io.NodeOutput(
            quantized or ExecutionBlocker(_NO_PREVIEW), checkpoint, text, ui=ui.PreviewText(text)
        )
