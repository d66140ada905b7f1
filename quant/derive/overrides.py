"""Give some layers of a recipe other formats, by name, each with a reason."""

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
    """A recipe derived from another file, and notes for the user on how it was derived."""

    recipe: Recipe
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Override:
    """The format that a layer gets instead of the recipe's choice, and the reason."""

    format: str
    why: str


def layers_by_shape(shapes: Mapping[str, tuple[int, ...]]) -> Inventory:
    """Return an inventory made from nothing but layer names and weight shapes."""
    return inventory_of(
        TensorInfo(f"{name}.weight", shape, torch.bfloat16) for name, shape in shapes.items()
    )


def quantized_linears(recipe: Recipe, inventory: Inventory) -> dict[str, tuple[Layer, str]]:
    """Return the Linear layers that a recipe quantizes, and their formats.

    Does not check whether a format can store a layer's shape. The plan checks this.
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
    """Return ``base`` with one rule per override, placed before its own rules."""
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
    """Return lines that say how many layers get which format, and the reason."""
    lines = [f"{len(overrides)} of {len(considered)} quantized Linear layers get another format"]
    counts: dict[Override, int] = {}
    for override in overrides.values():
        counts[override] = counts.get(override, 0) + 1
    return [*lines, *(f"{n} {override.format}: {override.why}" for override, n in counts.items())]
