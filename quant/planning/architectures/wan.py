"""WAN 2.1 and 2.2."""

from __future__ import annotations

from ..inventory import Inventory
from .architecture import Architecture

_BY_CHANNELS = {
    48: ("wan-ti2v", "WAN 2.2 TI2V"),
    16: ("wan-t2v", "WAN T2V"),
    36: ("wan-i2v", "WAN I2V"),
}


def wan(inventory: Inventory) -> Architecture | None:
    """Recognise WAN with ComfyUI's names."""
    patch = inventory.shape_of("patch_embedding")
    modulation = inventory.shape_of("head.modulation")
    if not patch or not modulation or not inventory.shape_of("blocks.0.self_attn.q"):
        return None
    channels, width = patch[1], modulation[-1]
    facts = f"{channels} input channels, width {width}, {inventory.containers.get('blocks')} blocks"
    if "vace_blocks" in inventory.containers:
        return Architecture("wan-vace", "WAN VACE", facts)
    return Architecture(*_BY_CHANNELS.get(channels, ("wan", "WAN")), facts)


def wan_diffusers(inventory: Inventory) -> Architecture | None:
    """Recognise WAN with diffusers' names."""
    if not inventory.shape_of("condition_embedder.time_proj"):
        return None
    return Architecture(
        "wan-diffusers",
        "WAN with diffusers names",
        problem="ComfyUI does not load WAN with diffusers names; quantize the original file, "
        "because the pack translates its names when it opens the file",
    )
