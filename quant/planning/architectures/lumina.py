"""Z-Image, Lumina 2 and NewBie, which share their code in ComfyUI."""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks

_BY_WIDTH = {3840: ("z-image", "Z-Image"), 2304: ("lumina2", "Lumina 2")}


def lumina(inventory: Inventory) -> Architecture | None:
    """Recognise Z-Image and Lumina 2, which ComfyUI tells apart by their width."""
    caption = inventory.shape_of("cap_embedder.1")
    if not caption or "noise_refiner.0.attention.k_norm" not in inventory.layers:
        return None
    width = caption[0]
    facts = f"width {width}, {describe_blocks(inventory, 'layers')}"
    if width not in _BY_WIDTH:
        known = " and ".join(f"{title} ({size})" for size, (_, title) in _BY_WIDTH.items())
        problem = f"ComfyUI supports only these widths: {known}; start from one of these models"
        return Architecture("lumina", "a relative of Lumina 2", facts, problem)
    read = ("cap_embedder.1", "x_embedder")
    if "dec_net.cond_embed" in inventory.layers:
        return Architecture("z-image-pixel", "Z-Image in pixels", facts, shapes_read=read)
    if "clip_text_pooled_proj.0" in inventory.layers:
        return Architecture("newbie", "NewBie", facts, shapes_read=read)
    return Architecture(*_BY_WIDTH[width], facts, shapes_read=read)
