"""Recognise the model that an inventory belongs to, so that a preset can refuse other models.

Each family has one file with a function that takes an inventory and returns an `Architecture` or
None. The functions check the same keys as ComfyUI's ``model_detection.py``, and in the same order
where the order matters.
"""

from __future__ import annotations

from collections.abc import Callable

from ..inventory import Inventory
from .architecture import Architecture
from .diffusers import diffusers
from .flux import flux
from .hunyuan_video import hunyuan_video
from .language_models import language_model
from .ltx import ltx
from .lumina import lumina
from .other import transformer
from .qwen_image import qwen_image
from .seedvr2 import seedvr2
from .text_encoders import t5, unquantizable_text_encoder
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
            return found
    return Architecture("unknown", "an unknown model without a list of blocks")
