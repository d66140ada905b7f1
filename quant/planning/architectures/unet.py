"""The U-Nets of Stable Diffusion: transformers between convolutions."""

from __future__ import annotations

import re

from ..inventory import Inventory
from .architecture import Architecture, present

_FIRST = re.compile(r"input_blocks\.(\d+)\.1\.transformer_blocks\.0\.attn2\.to_k")
#: Widths of the text encoders' output.
_BY_CONTEXT = {768: ("sd1.5", "Stable Diffusion 1.5"), 1024: ("sd2", "Stable Diffusion 2")}
_SDXL_CONTEXT = 2048


def unet(inventory: Inventory) -> Architecture | None:
    """Recognise SD 1.5, SD 2 and SDXL by the width of the text that cross-attention reads."""
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
    if context == _SDXL_CONTEXT and "label_emb.0.0" in inventory.layers:
        return Architecture("sdxl", "SDXL", facts, shapes_read=read)
    known = _BY_CONTEXT.get(context, ("unet", "a Stable Diffusion U-Net"))
    return Architecture(*known, facts, shapes_read=read)
