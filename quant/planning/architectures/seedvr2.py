"""SeedVR2, a restoration model. It has no preset of its own; use ``smart``."""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks

_CONDITIONING = ("positive_conditioning", "negative_conditioning")


def seedvr2(inventory: Inventory) -> Architecture | None:
    """Recognise SeedVR2 by its attention, which has branches for video and text."""
    shape = inventory.shape_of("blocks.0.attn.proj_qkv.vid")
    if not shape or "vid_in.proj" not in inventory.layers:
        return None
    facts = f"width {shape[1]}, {describe_blocks(inventory, 'blocks')}"
    missing = [name for name in _CONDITIONING if name not in inventory.layers]
    if missing:
        problem = (
            f"the file lacks {' and '.join(missing)}, which ComfyUI needs; start from a file made "
            "for ComfyUI, or add these tensors (pos_emb.pt and neg_emb.pt of the release)"
        )
        return Architecture("seedvr2", "SeedVR2", facts, problem)
    return Architecture("seedvr2", "SeedVR2", facts)
