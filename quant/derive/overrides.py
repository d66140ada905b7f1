"""Other formats for some layers of a recipe, by name, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..formats import get_format
from ..planning.inventory import Inventory, Layer, inventory_of
from ..planning.plan import decide_format
from ..planning.recipe import Recipe, Rule
from ..sources.base import TensorInfo
from .exact_recipe import exact_pattern


@dataclass(frozen=True)
class DerivedRecipe:
    """A recipe made from something else, and what a user should know of how it came about."""

    recipe: Recipe
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Override:
    """The format a layer gets instead of a recipe's own, and why."""

    format: str
    why: str


def layers_by_shape(shapes: Mapping[str, tuple[int, ...]]) -> Inventory:
    """Return the layers that an artefact knows by name and weight shape alone."""
    return inventory_of(
        TensorInfo(f"{name}.weight", shape, torch.bfloat16) for name, shape in shapes.items()
    )


def quantized_linears(recipe: Recipe, inventory: Inventory) -> dict[str, tuple[Layer, str]]:
    """Return the Linears a recipe quantizes, and in which format.

    Whether a shape fits the format is not asked: the plan will say.
    """
    found = {}
    for layer in inventory.of_kind("linear"):
        name, _ = decide_format(recipe, layer)
        if get_format(name).is_quantized:
            found[layer.name] = (layer, name)
    return found


def with_overrides(
    base: Recipe, overrides: Mapping[str, Override], *, name: str, description: str
) -> Recipe:
    """Return the base recipe with rules before its own that name the layers of the overrides."""
    grouped: dict[Override, list[str]] = {}
    for layer, override in overrides.items():
        grouped.setdefault(override, []).append(exact_pattern(layer))
    rules = tuple(
        Rule(pattern=tuple(names), format=override.format, why=override.why)
        for override, names in grouped.items()
    )
    named = base.model_copy(update={"name": name, "description": description})
    return named.with_rules(rules)


def count_overrides(
    overrides: Mapping[str, Override], considered: Mapping[str, object]
) -> list[str]:
    """Return how many layers got which format for which reason, in words."""
    lines = [f"{len(considered)} Linears considered, {len(overrides)} get another format"]
    counts: dict[Override, int] = {}
    for override in overrides.values():
        counts[override] = counts.get(override, 0) + 1
    return [*lines, *(f"{n} {override.format}: {override.why}" for override, n in counts.items())]
