"""Report how the formats of a recipe run on a machine, as text."""

from __future__ import annotations

from ..formats import get_format
from ..hardware.generations import GENERATIONS
from ..hardware.machine import Machine
from ..planning import Recipe


def describe_support(recipe: Recipe, machine: Machine) -> str:
    """Return which formats of a recipe are native on a machine and which only save memory.

    Nothing is known of the formats of an automatic recipe before it is applied to a model.
    """
    if recipe.auto:
        return _automatic(recipe)
    names = [name for name in recipe.formats() if get_format(name).is_quantized]
    where = machine.gpu.name if machine.gpu else "this machine, which has no CUDA GPU"
    return "\n".join(
        [
            f"recipe {recipe.name}",
            f"on {where}:" if names else "quantizes nothing",
            *(str(machine.support(name)) for name in names),
        ]
    )


def _automatic(recipe: Recipe) -> str:
    lines = [
        f"recipe {recipe.name}",
        "the preset is chosen when the model is known: Plan Layers names it, with its formats",
    ]
    if recipe.gpu is not None:
        lines.append(f"its formats are adapted to {GENERATIONS[recipe.gpu]}")
    lines += [f"your rule: {rule.pattern} = {rule.format}" for rule in recipe.rules]
    return "\n".join(lines)
