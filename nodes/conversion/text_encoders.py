"""Planning and quantizing the text encoder of a CLIP."""

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
from ..inputs.sockets import CATEGORY, CheckpointSocket, PlanSocket, RecipeSocket

_NO_PREVIEW = (
    "this CLIP did not come from text encoder files, so the quantized one cannot be shown in it: "
    "save the checkpoint to text_encoders and load it there"
)


def _encoder_input() -> io.Input:
    return io.String.Input(
        "encoder",
        default="",
        tooltip="Which one, of a CLIP with several: t5xxl, llama, ... Empty: the largest.",
    )


class PlanTextEncoder(io.ComfyNode):
    """Resolve a recipe against a text encoder: a dry run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryPlanTextEncoder",
            display_name="Plan Text Encoder",
            category=CATEGORY,
            description=(
                "Shows which layer of a text encoder would get which format and why, and the size "
                "before and after. Nothing is converted."
            ),
            search_aliases=["nvfp4 clip", "t5 nvfp4", "quantize text encoder"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder to quantize, from Load CLIP."),
                RecipeSocket.Input(
                    "recipe", tooltip="From Select NVFP4 Preset: t5-xxl, qwen2.5-vl or smart."
                ),
                _encoder_input(),
                io.Boolean.Input(
                    "any_architecture",
                    default=False,
                    advanced=True,
                    tooltip="Use the preset even on a model it was not written for.",
                ),
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
        """Plan."""
        with TextEncoderSource(clip, encoder.strip()) as source:
            plan = make_plan(recipe, take_inventory(source), any_architecture=any_architecture)
            text = describe_plan(plan, source.notes)
        return io.NodeOutput(plan, text, ui=ui.PreviewText(text))


class QuantizeTextEncoder(io.ComfyNode):
    """CLIP and plan become a quantized CLIP and a checkpoint to save."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="NVFP4FoundryQuantizeTextEncoder",
            display_name="Quantize Text Encoder",
            category=CATEGORY,
            description=(
                "Quantizes a text encoder as planned. Save the checkpoint to text_encoders and "
                "load it with Load CLIP. ComfyUI multiplies text encoders in 16 or 32 bit "
                "whatever their format, so there is nothing to calibrate: less memory, not less "
                "time."
            ),
            search_aliases=["nvfp4 clip", "t5 nvfp4", "convert text encoder", "fp4 clip"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP the plan was made for."),
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
        """Quantize."""
        with TextEncoderSource(clip, encoder.strip()) as source:
            checkpoint = quantize_to_memory(
                source, plan, device=compute_device(), on_progress=progress_bar()
            )
            quantized = clip_from_checkpoint(checkpoint, source, clip)
        text = describe_conversion(checkpoint.report, every_layer=False)
        return io.NodeOutput(
            quantized or ExecutionBlocker(_NO_PREVIEW), checkpoint, text, ui=ui.PreviewText(text)
        )
