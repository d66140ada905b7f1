"""What is recognised of a model."""

from __future__ import annotations

from dataclasses import dataclass

from ..inventory import Inventory


@dataclass(frozen=True)
class Architecture:
    """A recognised model.

    ``id`` is what presets list; ``title`` and ``facts`` are for people. ``problem`` says why
    ComfyUI cannot load such a file, or is None. ``shapes_read`` are the Linears whose number of
    inputs tells ComfyUI which model it is: a format that packs their columns would make the file
    another model.
    """

    id: str
    title: str
    facts: str = ""
    problem: str | None = None
    shapes_read: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.title} ({self.facts})" if self.facts else self.title


def has_norm(inventory: Inventory, name: str) -> bool:
    """Whether there is a norm, whether the file calls its factors ``weight`` or ``scale``."""
    return name in inventory.layers or f"{name}.scale" in inventory.layers


def describe_blocks(inventory: Inventory, *containers: str) -> str:
    """Return how many blocks the named lists have; lists the model lacks are left out."""
    counts = inventory.containers
    return ", ".join(f"{counts[name]} {name}" for name in containers if name in counts)


def present(inventory: Inventory, *names: str) -> tuple[str, ...]:
    """Return the names that are layers of the model."""
    return tuple(name for name in names if name in inventory.layers)
