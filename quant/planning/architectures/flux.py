"""Flux.1, Flux.2, and their relatives.

Chroma is a Flux.1 whose modulation comes from one separate network. LongCat and Ovis have another
text encoder and no vector of the whole text.
"""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks, has_norm, present

_LONGCAT_TEXT = 3584


def flux(inventory: Inventory) -> Architecture | None:
    """Recognise the Flux family by its double blocks."""
    chroma = _is_chroma(inventory)
    if not has_norm(inventory, "double_blocks.0.img_attn.norm.key_norm"):
        return None
    if not chroma and "img_in" not in inventory.layers:
        return None
    shape = inventory.shape_of("txt_in") or inventory.shape_of("img_in")
    width = f"width {shape[0]}, " if shape else ""
    facts = width + describe_blocks(inventory, "double_blocks", "single_blocks")
    read = present(inventory, "img_in", "txt_in", "vector_in.in_layer")
    if chroma:
        radiance = has_norm(inventory, "nerf_blocks.0.norm")
        kind = ("chroma-radiance", "Chroma Radiance") if radiance else ("chroma", "Chroma")
        return Architecture(*kind, facts, shapes_read=read)
    if "double_stream_modulation_img.lin" in inventory.layers:
        return Architecture("flux2", "Flux.2", facts, shapes_read=read)
    if "guidance_in.in_layer" not in inventory.layers:
        facts += ", no guidance"
    return Architecture(*_flux1(inventory), facts, shapes_read=read)


def _flux1(inventory: Inventory) -> tuple[str, str]:
    """Return id and title of a model with the modulation of Flux.1 in every block."""
    text = inventory.shape_of("txt_in")
    if "double_blocks.0.img_mlp.gate_proj" in inventory.layers and has_norm(inventory, "txt_norm"):
        return "ovis-image", "Ovis-Image"
    if (
        text
        and text[-1] == _LONGCAT_TEXT
        and not any(f"{name}.in_layer" in inventory.layers for name in ("vector_in", "guidance_in"))
    ):
        return "longcat-image", "LongCat-Image"
    return "flux1", "Flux.1"


def _is_chroma(inventory: Inventory) -> bool:
    network = "distilled_guidance_layer"
    return any(has_norm(inventory, f"{network}.{name}") for name in ("norms.0", "0.norms.0"))
