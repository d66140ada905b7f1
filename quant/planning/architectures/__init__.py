"""Recognise the model that an inventory belongs to, so that a preset can refuse other models.

A family that a few names tell from all others is a `Sign`. Any other family has a file with a
function that takes an inventory and returns an `Architecture` or None. All check the same keys as
ComfyUI's ``model_detection.py``, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..layers import Inventory
from . import signs
from .architecture import Architecture, present
from .diffusers import diffusers
from .flux import flux
from .hunyuan_video import hunyuan_video
from .known_models import KnownModel, known_model
from .language_models import language_model
from .ltx import ltx
from .lumina import lumina
from .other import transformer
from .qwen_image import mage_flow, qwen_image
from .seedvr2 import seedvr2
from .text_encoders import t5, unquantizable_text_encoder
from .unet import unet
from .wan import wan, wan_diffusers

__all__ = ["Architecture", "KnownModel", "detect_architecture", "known_model"]

_DETECTORS: tuple[Callable[[Inventory], Architecture | None], ...] = (
    signs.MINIMAX_MUSIC,
    signs.MINIMAX_H3_VAE,
    signs.SD3,
    signs.CASCADE_C,
    signs.CASCADE_B,
    signs.TRELLIS_SHAPE,
    signs.TRELLIS_TEXTURE,
    signs.STABLE_AUDIO_3,
    signs.STABLE_AUDIO,
    signs.AURAFLOW,
    signs.HUNYUAN_DIT,
    hunyuan_video,
    flux,
    signs.MOCHI,
    signs.MINIMAX_H3,
    ltx,
    signs.ACE_STEP,
    signs.PIXART_ALPHA,
    signs.PIXART_SIGMA,
    signs.COSMOS,
    signs.PID,
    signs.PIXELDIT,
    lumina,
    signs.COGVIDEOX,
    seedvr2,
    wan,
    signs.HUNYUAN_3D,
    signs.HUNYUAN_3D_21,
    signs.TRIPOSPLAT,
    signs.HIDREAM_O1,
    signs.HIDREAM_I1,
    signs.ANIMA,
    signs.COSMOS_PREDICT2,
    signs.BOOGU,
    signs.OMNIGEN2,
    signs.LENS,
    mage_flow,
    qwen_image,
    signs.IDEOGRAM,
    signs.KREA2,
    signs.KANDINSKY,
    signs.ACE_STEP_15,
    signs.RT_DETR,
    signs.DEPTH_ANYTHING,
    signs.ERNIE,
    signs.SAM3,
    signs.JOYIMAGE,
    unet,
    wan_diffusers,
    diffusers,
    unquantizable_text_encoder,
    t5,
    language_model,
    transformer,
)


def detect_architecture(inventory: Inventory) -> Architecture:
    """Return the recognised architecture.

    Other models with a list of blocks are ``transformer``, and all others ``unknown``.
    """
    for detector in _DETECTORS:
        found = detector(inventory)
        if found:
            return _with_shapes_read(found, inventory)
    return Architecture("unknown", "an unknown model without a list of blocks")


def _with_shapes_read(found: Architecture, inventory: Inventory) -> Architecture:
    """Add the layers whose shapes decide what ComfyUI takes the published models for."""
    known = known_model(found.id)
    if known is None:
        return found
    shapes = dict.fromkeys((*found.shapes_read, *known.shapes_read))
    return replace(
        found,
        shapes_read=present(inventory, *shapes),
        rows_read=present(inventory, *known.rows_read),
    )
