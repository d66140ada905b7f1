"""Whatever has lists of blocks."""

from __future__ import annotations

from ..inventory import Inventory
from .architecture import Architecture, describe_blocks


def transformer(inventory: Inventory) -> Architecture | None:
    """Recognise lists of blocks."""
    if not inventory.containers:
        return None
    facts = describe_blocks(inventory, *inventory.containers)
    return Architecture("transformer", "a transformer no preset is written for", facts)
