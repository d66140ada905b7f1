"""LTX-Video and LTX-2, which also makes sound."""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks, present


def ltx(inventory: Inventory) -> Architecture | None:
    """Recognise LTX by its single adaptive norm.

    PixArt with diffusers names has such a norm too, but it also has a position embedding.
    """
    if "adaln_single.emb.timestep_embedder.linear_1" not in inventory.layers:
        return None
    if "pos_embed.proj" in inventory.layers:
        return None
    shape = inventory.shape_of("patchify_proj")
    facts = f"width {shape[0]}, " if shape else ""
    facts += describe_blocks(inventory, "transformer_blocks")
    read = present(inventory, "transformer_blocks.0.attn2.to_k")
    if "audio_adaln_single.linear" in inventory.layers:
        return Architecture("ltx-2", "LTX-2", facts, shapes_read=read)
    return Architecture("ltxv", "LTX-Video", facts, shapes_read=read)
