"""Hunyuan Video and Hunyuan Video 1.5, with ComfyUI's names or the original names."""

from __future__ import annotations

from ..inventory import Inventory
from .architecture import Architecture, describe_blocks, present


def hunyuan_video(inventory: Inventory) -> Architecture | None:
    """Recognise Hunyuan Video by its token refiner; version 1.5 has no single blocks."""
    if "txt_in.individual_token_refiner.blocks.0.norm1" not in inventory.layers:
        return None
    patch = inventory.shape_of("img_in.proj")
    facts = f"{patch[1]} input channels, width {patch[0]}, " if patch else ""
    facts += describe_blocks(inventory, "double_blocks", "single_blocks")
    read = present(inventory, "txt_in.input_embedder")
    if "single_blocks" in inventory.containers:
        return Architecture("hunyuan-video", "Hunyuan Video", facts, shapes_read=read)
    return Architecture("hunyuan-video-1.5", "Hunyuan Video 1.5", facts, shapes_read=read)
