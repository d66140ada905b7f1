"""Hunyuan Video, Video 1.5 and Image 2.1, with ComfyUI's names or the original names."""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks, present


def hunyuan_video(inventory: Inventory) -> Architecture | None:
    """Recognise the family by its token refiner."""
    if "txt_in.individual_token_refiner.blocks.0.norm1" not in inventory.layers:
        return None
    patch = inventory.shape_of("img_in.proj")
    facts = f"{patch[1]} input channels, width {patch[0]}, " if patch else ""
    facts += describe_blocks(inventory, "double_blocks", "single_blocks")
    read = present(inventory, "txt_in.input_embedder")
    return Architecture(*_member(inventory, patch or ()), facts, shapes_read=read)


def _member(inventory: Inventory, patch: tuple[int, ...]) -> tuple[str, str]:
    """Return id and title. Pictures have patches of two dimensions; a refiner's have one pixel."""
    if "single_blocks" not in inventory.containers:
        return "hunyuan-video-1.5", "Hunyuan Video 1.5"
    if len(patch) == 4:
        return "hunyuan-image-2.1", "Hunyuan Image 2.1"
    if patch[2:] == (1, 1, 1):
        return "hunyuan-image-2.1-refiner", "Hunyuan Image 2.1 refiner"
    return "hunyuan-video", "Hunyuan Video"
