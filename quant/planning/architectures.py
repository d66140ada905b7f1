"""Recognise what model an inventory is, so that a preset can refuse the wrong one by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .inventory import Inventory


@dataclass(frozen=True)
class Architecture:
    """A recognised model.

    ``id`` is what presets list; ``title`` and ``facts`` are for people. ``problem`` says why
    ComfyUI cannot load such a file, or is None.
    """

    id: str
    title: str
    facts: str = ""
    problem: str | None = None

    def __str__(self) -> str:
        return f"{self.title} ({self.facts})" if self.facts else self.title


def detect_architecture(inventory: Inventory) -> Architecture:
    """Return the architecture; ``transformer`` for any other list of blocks, else ``unknown``."""
    for detector in _DETECTORS:
        found = detector(inventory)
        if found:
            return found
    return Architecture("unknown", "an unknown model without a list of blocks")


def _wan(inventory: Inventory) -> Architecture | None:
    patch = inventory.shape_of("patch_embedding")
    modulation = inventory.shape_of("head.modulation")
    if not patch or not modulation or not inventory.shape_of("blocks.0.self_attn.q"):
        return None
    channels, width = patch[1], modulation[-1]
    facts = f"{channels} input channels, width {width}, {inventory.containers.get('blocks')} blocks"
    if "vace_blocks" in inventory.containers:
        return Architecture("wan-vace", "WAN VACE", facts)
    if channels == 48:
        return Architecture("wan-ti2v", "WAN 2.2 TI2V", facts)
    if channels == 16:
        return Architecture("wan-t2v", "WAN T2V", facts)
    if channels == 36:
        return Architecture("wan-i2v", "WAN I2V", facts)
    return Architecture("wan", "WAN", facts)


def _wan_diffusers(inventory: Inventory) -> Architecture | None:
    if not inventory.shape_of("condition_embedder.time_proj"):
        return None
    return Architecture(
        "wan-diffusers",
        "WAN with diffusers names",
        problem="ComfyUI does not load WAN with diffusers names; quantize its unquantized file, "
        "whose names are translated when it is opened",
    )


def _qwen_image(inventory: Inventory) -> Architecture | None:
    if not inventory.shape_of("transformer_blocks.0.img_mod.1") or not inventory.shape_of("txt_in"):
        return None
    count = inventory.containers.get("transformer_blocks")
    if "__index_timestep_zero__" in inventory.layers:
        return Architecture("qwen-image-edit-2511", "Qwen-Image-Edit 2511", f"{count} blocks")
    return Architecture("qwen-image", "Qwen-Image", f"{count} blocks")


def _transformer(inventory: Inventory) -> Architecture | None:
    containers = inventory.containers
    if not containers:
        return None
    facts = ", ".join(f"{count} {name}" for name, count in containers.items())
    return Architecture("transformer", "a transformer no preset is written for", facts)


_DETECTORS: tuple[Callable[[Inventory], Architecture | None], ...] = (
    _wan,
    _wan_diffusers,
    _qwen_image,
    _transformer,
)
