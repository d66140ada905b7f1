"""Other models that have a list of blocks."""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks


def transformer(inventory: Inventory) -> Architecture | None:
    """Recognise any model with a list of blocks."""
    if not inventory.containers:
        return None
    facts = describe_blocks(inventory, *inventory.containers)
    return Architecture("transformer", "a transformer without a preset of its own", facts)
