"""Qwen-Image and its edit models, and Mage-Flow, which has the same names and other sizes."""

from __future__ import annotations

from ...sources.qwen_edit import ARCHITECTURE_2511, MARKER_2511
from ..layers import Inventory
from .architecture import Architecture
from .signs import NEWER

_MAGE_FLOW = {"txt_norm": 2560, "proj_out": 128}
_QWEN_2_1 = "transformer_blocks.0.img_mlp.gate_up"


def mage_flow(inventory: Inventory) -> Architecture | None:
    """Recognise Mage-Flow by the sizes that ComfyUI looks at."""
    shapes = {name: inventory.shape_of(name) for name in _MAGE_FLOW}
    if any(not shape or shape[0] != _MAGE_FLOW[name] for name, shape in shapes.items()):
        return None
    facts = f"{inventory.containers.get('transformer_blocks')} blocks"
    return Architecture("mage-flow", "Mage-Flow", facts)


def qwen_image(inventory: Inventory) -> Architecture | None:
    """Recognise Qwen-Image; a marker tensor tells Edit 2511 from the others."""
    facts = f"{inventory.containers.get('transformer_blocks')} blocks"
    if _QWEN_2_1 in inventory.layers:
        return Architecture("qwen-image-2.1", "Qwen-Image 2.1", facts, since=f"newer than {NEWER}")
    if not inventory.shape_of("transformer_blocks.0.img_mod.1") or not inventory.shape_of("txt_in"):
        return None
    read = ("img_in",)
    if MARKER_2511 in inventory.layers:
        title = "Qwen-Image-Edit 2511"
        return Architecture(ARCHITECTURE_2511, title, facts, shapes_read=read)
    return Architecture("qwen-image", "Qwen-Image", facts, shapes_read=read)
