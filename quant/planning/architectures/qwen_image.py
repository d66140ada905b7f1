"""Qwen-Image and its edit models."""

from __future__ import annotations

from ...sources.qwen_edit import ARCHITECTURE_2511, MARKER_2511
from ..inventory import Inventory
from .architecture import Architecture


def qwen_image(inventory: Inventory) -> Architecture | None:
    """Recognise Qwen-Image; a marker tensor tells Edit 2511 from the others."""
    if not inventory.shape_of("transformer_blocks.0.img_mod.1") or not inventory.shape_of("txt_in"):
        return None
    facts = f"{inventory.containers.get('transformer_blocks')} blocks"
    read = ("img_in",)
    if MARKER_2511 in inventory.layers:
        title = "Qwen-Image-Edit 2511"
        return Architecture(ARCHITECTURE_2511, title, facts, shapes_read=read)
    return Architecture("qwen-image", "Qwen-Image", facts, shapes_read=read)
