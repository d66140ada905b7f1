"""Recognise what model an inventory is, so that a preset can refuse the wrong one by name.

One file per family, each with a function from an inventory to an `Architecture` or None. They look
at the keys ComfyUI's own ``model_detection.py`` looks at, and in its order where it matters.
"""

from __future__ import annotations

from collections.abc import Callable

from ..inventory import Inventory
from .architecture import Architecture
from .diffusers import diffusers
from .flux import flux
from .hunyuan_video import hunyuan_video
from .ltx import ltx
from .lumina import lumina
from .other import transformer
from .qwen_image import qwen_image
from .seedvr2 import seedvr2
from .text_encoders import language_model, t5, unquantizable_text_encoder
from .unet import unet
from .wan import wan, wan_diffusers

__all__ = ["Architecture", "detect_architecture"]

_DETECTORS: tuple[Callable[[Inventory], Architecture | None], ...] = (
    hunyuan_video,
    flux,
    ltx,
    lumina,
    seedvr2,
    wan,
    wan_diffusers,
    qwen_image,
    unet,
    diffusers,
    t5,
    language_model,
    unquantizable_text_encoder,
    transformer,
)


def detect_architecture(inventory: Inventory) -> Architecture:
    """Return the architecture; ``transformer`` for any other list of blocks, else ``unknown``."""
    for detector in _DETECTORS:
        found = detector(inventory)
        if found:
            return found
    return Architecture("unknown", "an unknown model without a list of blocks")
