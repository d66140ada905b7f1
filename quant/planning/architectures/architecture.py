"""The recognised architecture of a model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..layers import Inventory


@dataclass(frozen=True)
class Architecture:
    """A recognised model.

    Presets list the ``id``; users see ``title`` and ``facts``. ``problem`` says why ComfyUI cannot
    load such a file, or is None. ``shapes_read`` names the Linear layers from whose number of
    inputs ComfyUI recognises the model, and ``rows_read`` those from whose number of outputs. A
    format that packs the one or pads the other would make ComfyUI take the file for another model.
    ComfyUI multiplies text encoders in 16 or 32 bits in any format (``full_precision_mm`` in its
    ``sd1_clip.py``), so with ``is_text_encoder`` the layers need no input scales. ``since`` is the
    first ComfyUI that knows the model, if that is not the oldest that the pack supports.
    ``former_ids`` are ids that earlier versions gave such a model; recipes saved for them fit it.
    """

    id: str
    title: str
    facts: str = ""
    problem: str | None = None
    shapes_read: tuple[str, ...] = ()
    rows_read: tuple[str, ...] = ()
    is_text_encoder: bool = False
    since: str = ""
    former_ids: tuple[str, ...] = ()

    def is_one_of(self, ids: Collection[str]) -> bool:
        """Whether ids of architectures, present or former, name this model."""
        return any(name in ids for name in (self.id, *self.former_ids))

    def __str__(self) -> str:
        facts = [self.facts] if self.facts else []
        facts += [f"needs ComfyUI {self.since}"] if self.since else []
        return f"{self.title} ({', '.join(facts)})" if facts else self.title


def has_norm(inventory: Inventory, name: str) -> bool:
    """Whether the model has this norm. Files call its factors ``weight`` or ``scale``."""
    return name in inventory.layers or f"{name}.scale" in inventory.layers


def describe_blocks(inventory: Inventory, *containers: str) -> str:
    """Return the number of blocks of each named list, in words. Skip lists that the model lacks."""
    counts = inventory.containers
    return ", ".join(f"{counts[name]} {name}" for name in containers if name in counts)


def present(inventory: Inventory, *names: str) -> tuple[str, ...]:
    """Return those of the names that are layers of the model."""
    return tuple(name for name in names if name in inventory.layers)
