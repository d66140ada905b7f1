"""The U-Nets of Stable Diffusion: transformers between convolutions."""

from __future__ import annotations

import re

from ..layers import Inventory
from .architecture import Architecture, present

_FIRST = re.compile(r"input_blocks\.(\d+)\.1\.transformer_blocks\.0\.attn2\.to_k")
_TRANSFORMER = re.compile(r"(input_blocks\.\d+\.1)\.transformer_blocks\.(\d+)\.attn2\.to_k")
_BY_CONTEXT = {768: ("sd1.5", "Stable Diffusion 1.5"), 1024: ("sd2", "Stable Diffusion 2")}
_SDXL_CONTEXT = 2048
_REFINER_CONTEXT = 1280
# Relatives of SDXL by how many transformer blocks each level has on the way in.
_SDXL_BY_DEPTHS = {
    (2, 2, 4, 4): "SSD-1B",
    (1, 1, 2, 2): "Segmind Vega",
    (2, 5): "KOALA 700M",
    (2, 6): "KOALA 1B",
}
_UPSCALER = (256, 7)
_LOTUS_LABELS = 4


def unet(inventory: Inventory) -> Architecture | None:
    """Recognise U-Nets by the width of the text that cross-attention reads, and by their labels."""
    patch = inventory.shape_of("input_blocks.0.0")
    found = {int(m[1]): m[0] for name in inventory.layers if (m := _FIRST.fullmatch(name))}
    if not patch or not found:
        return None
    # ComfyUI reads the width of the text from the first transformer block
    first = found[min(found)]
    shape = inventory.shape_of(first)
    context = shape[-1] if shape else 0
    count = sum(
        name.endswith(".attn2.to_k") and ".transformer_blocks." in name for name in inventory.layers
    )
    facts = f"{patch[1]} input channels, text width {context}, {count} transformer blocks"
    read = (first, *present(inventory, "label_emb.0.0"))
    return Architecture(*_member(inventory, patch, context), facts, shapes_read=read)


def _member(inventory: Inventory, patch: tuple[int, ...], context: int) -> tuple[str, str]:
    """Return id and title."""
    labels = inventory.shape_of("label_emb.0.0")
    if any(".time_stack." in name for name in inventory.layers):
        return "svd", "Stable Video Diffusion"
    if context == _SDXL_CONTEXT and labels:
        return "sdxl", _SDXL_BY_DEPTHS.get(_depths(inventory), "SDXL")
    if context == _REFINER_CONTEXT and labels:
        return "sdxl-refiner", "SDXL refiner"
    if labels and labels[-1] == _LOTUS_LABELS:
        return "lotus-d", "Lotus-D"
    if patch[:2] == _UPSCALER:
        return "sd-x4-upscaler", "Stable Diffusion x4 upscaler"
    if "cc_projection" in inventory.layers:
        return "zero123", "Stable Zero123"
    return _BY_CONTEXT.get(context, ("unet", "a Stable Diffusion U-Net"))


def _depths(inventory: Inventory) -> tuple[int, ...]:
    """Return the number of transformer blocks of each input block that has some."""
    found: dict[str, int] = {}
    for name in inventory.layers:
        block = _TRANSFORMER.fullmatch(name)
        if block:
            found[block[1]] = max(found.get(block[1], 0), int(block[2]) + 1)
    return tuple(found[name] for name in sorted(found, key=lambda n: int(n.split(".")[1])))
