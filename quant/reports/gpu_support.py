"""Report how the formats of a recipe run on a machine, as text."""

from __future__ import annotations

from ..formats import get_format
from ..hardware.machine import Machine
from ..planning import Recipe


def describe_support(recipe: Recipe, machine: Machine) -> str:
    """Return which formats of a recipe are native on a machine and which only save memory."""
    names = [name for name in recipe.formats() if get_format(name).is_quantized]
    where = machine.gpu.name if machine.gpu else "this machine, which has no CUDA GPU"
    return "\n".join(
        [
            f"recipe {recipe.name}",
            f"on {where}:" if names else "quantizes nothing",
            *(str(machine.support(name)) for name in names),
        ]
    )
