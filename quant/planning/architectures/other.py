"""Other models that have a list of blocks."""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks
from .signs import NEWER


def transformer(inventory: Inventory) -> Architecture | None:
    """Recognise any model with a list of blocks."""
    if not inventory.containers:
        return None
    facts = describe_blocks(inventory, *inventory.containers)
    return Architecture("transformer", f"a transformer that ComfyUI {NEWER} does not know", facts)
