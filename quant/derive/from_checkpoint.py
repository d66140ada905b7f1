"""A recipe that gives every layer the format it has in an existing quantized checkpoint."""

from __future__ import annotations

from collections import Counter

import torch

from ..errors import RecipeError
from ..formats import FORMATS
from ..planning.architectures import detect_architecture
from ..planning.inventory import Layer, take_inventory
from ..planning.recipe import Recipe, Rule
from ..sources import TensorSource
from ..sources.base import dtype_name
from .exact_recipe import exact_pattern
from .overrides import DerivedRecipe

# Architectures that say nothing of which model it is.
_GENERIC = ("transformer", "unknown")
# What weights without any scale are; the first that is a format here.
_PLAIN = {
    torch.float8_e4m3fn: ("float8_e4m3fn",),
    torch.float8_e5m2: ("float8_e5m2", "float8_e4m3fn"),
}


def recipe_from_checkpoint(checkpoint: TensorSource, name: str) -> DerivedRecipe:
    """Return the recipe a checkpoint could have been made by: layers by name, all else kept.

    Rounding and scales are those of a new recipe: a file does not say how its numbers were
    chosen. Layers that are not quantized there are kept as the source will have them.

    Args:
        checkpoint: as `open_source` opens it, of this or another tool.
        name: for messages and reports.

    Raises:
        RecipeError: it holds no quantized layer, or one in a format not known here.
    """
    inventory = take_inventory(checkpoint)
    formats: dict[str, str] = {}
    labels: Counter[str] = Counter()
    others = []
    for layer in inventory.layers.values():
        fmt, label = _stored(layer, name)
        if fmt and layer.kind == "linear":
            formats[layer.name] = fmt
            labels[label if fmt in label else f"{label}, so {fmt}"] += 1
        elif fmt:
            others.append(layer.name)
    if not formats:
        raise RecipeError(f"{name} holds no quantized layer; its choices are all 'keep'")
    notes = ["stored there: " + "; ".join(f"{n} {label}" for label, n in labels.most_common())]
    if others:
        notes.append(f"not taken over, no Linear: {', '.join(others)}")
    architecture = detect_architecture(inventory)
    known = architecture.problem is None and architecture.id not in _GENERIC
    recipe = Recipe(
        name=f"as-{name}",
        description=f"The formats of {name}, layer by layer.",
        architectures=(architecture.id,) if known else (),
        rules=_rules(formats, f"as in {name}"),
    )
    return DerivedRecipe(recipe, tuple(notes))


def _stored(layer: Layer, origin: str) -> tuple[str, str]:
    """Return a layer's format and what to call how it is stored; empty if not quantized."""
    stored = layer.tensor.stored
    if stored is None:
        plain = next((n for n in _PLAIN.get(layer.tensor.dtype, ()) if n in FORMATS), "")
        return plain, dtype_name(layer.tensor.dtype)
    if not stored.format:
        raise RecipeError(
            f"{layer.name} of {origin} is stored as {stored.label}, which is none of the formats "
            f"({', '.join(FORMATS)}); of a GGUF make the recipe by its bits: --from-gguf"
        )
    return stored.format, stored.label


def _rules(formats: dict[str, str], why: str) -> tuple[Rule, ...]:
    grouped: dict[str, list[str]] = {}
    for layer, fmt in formats.items():
        grouped.setdefault(fmt, []).append(exact_pattern(layer))
    return tuple(Rule(pattern=tuple(names), format=fmt, why=why) for fmt, names in grouped.items())
