"""Models with diffusers names that ComfyUI renames while it loads them.

ComfyUI renames weight by weight, and splits or joins q, k and v. It does not handle scales or
markers there, so a quantized file with these names gives noise.
"""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks

_SIGNS = {
    "single_transformer_blocks.0.attn.to_q": "Flux",
    "joint_transformer_blocks.0.attn.add_k_proj": "AuraFlow",
    "noise_refiner.0.attention.to_k": "Z-Image or Lumina 2",
    "transformer_blocks.0.norm1_context.linear": "SD3 or Flux",
    "down_blocks.0.resnets.0.conv1": "a Stable Diffusion U-Net",
}


# LTX-Video has the first of them too.
_PIXART = ("adaln_single.emb.timestep_embedder.linear_1", "pos_embed.proj")


def diffusers(inventory: Inventory) -> Architecture | None:
    """Recognise models that ComfyUI loads only after it renames their layers."""
    names = inventory.layers
    title = next((title for layer, title in _SIGNS.items() if layer in names), None)
    if title is None and all(layer in names for layer in _PIXART):
        title = "PixArt"
    if title is None:
        return None
    return Architecture(
        "diffusers",
        f"{title} with diffusers names",
        describe_blocks(inventory, *inventory.containers),
        "ComfyUI renames and joins its weights as it loads them, which breaks quantized "
        "weights; start from a file with ComfyUI's names",
    )
