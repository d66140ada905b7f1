"""The weights of what nodes accept as a model: a MODEL, or the text encoder of a CLIP."""

from __future__ import annotations

from typing import Any

from ...quant.errors import PlanError
from ...quant.planning import Plan, take_inventory
from ...quant.sources import AppliedLora
from .model_source import ModelSource
from .text_encoder_source import TextEncoderSource, encoder_names


def is_clip(model: Any) -> bool:
    """Whether an input is a CLIP."""
    return hasattr(model, "cond_stage_model")


def opened(
    model: Any,
    loras: tuple[AppliedLora, ...],
    *,
    encoder: str = "",
    plan: Plan | None = None,
) -> ModelSource:
    """Open a MODEL, or a text encoder of a CLIP, as a source.

    Args:
        model: the MODEL or CLIP.
        loras: the LoRA files that are known to be applied (see ``applied_loras``).
        encoder: ComfyUI's name for the encoder of a CLIP; empty for the largest.
        plan: the plan that was made for the encoder, instead of its name.

    Raises:
        SourceError: the weights cannot be read, or the CLIP has no such encoder.
        PlanError: the plan was made for none of the encoders.
    """
    if not is_clip(model):
        return ModelSource(model, loras)
    if plan is None:
        return TextEncoderSource(model, encoder)
    return _planned_encoder(model, plan)


def _planned_encoder(clip: Any, plan: Plan) -> TextEncoderSource:
    refusal: PlanError | None = None
    for name in encoder_names(clip):
        source = TextEncoderSource(clip, name)
        try:
            plan.require_layers(take_inventory(source))
        except PlanError as error:
            source.close()
            refusal = refusal or error
        else:
            return source
    raise refusal or PlanError("this CLIP has no text encoder that can be quantized")
