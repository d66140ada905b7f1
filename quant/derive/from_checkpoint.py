"""Derive a recipe that gives every layer the format it has in a quantized checkpoint."""

from __future__ import annotations

from collections import Counter

import torch

from ..errors import RecipeError
from ..formats import FORMATS
from ..planning.architectures import detect_architecture
from ..planning.inventory import Layer, take_inventory
from ..planning.loadable import needed_comfyui
from ..planning.recipe import Recipe, Rule
from ..sources import TensorSource
from ..sources.base import dtype_name
from .exact_recipe import exact_pattern
from .overrides import DerivedRecipe

# Architectures that do not identify a model.
_GENERIC = ("transformer", "unknown")
# The formats of weights without a scale. The first one in the registry is used.
_PLAIN = {
    torch.float8_e4m3fn: ("float8_e4m3fn",),
    torch.float8_e5m2: ("float8_e5m2", "float8_e4m3fn"),
}


def recipe_from_checkpoint(checkpoint: TensorSource, name: str) -> DerivedRecipe:
    """Return a recipe that names the quantized layers of a checkpoint and keeps all others.

    A file does not tell how its codes and scales were chosen, so the recipe has the default
    rounding and input scales.

    Args:
        checkpoint: a file made by this or another tool, opened with `open_source`.
        name: used in messages and reports.

    Raises:
        RecipeError: the checkpoint holds no quantized layer, or one in a format that is not in
            the registry.
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
        raise RecipeError(
            f"{name} holds no quantized layer; choose a quantized checkpoint to copy the formats of"
        )
    stored = "; ".join(f"{n} {label}" for label, n in labels.most_common())
    notes = [f"quantized Linear layers in {name}: {stored}"]
    if others:
        notes.append(f"kept, because they are not Linear layers: {', '.join(others)}")
    architecture = detect_architecture(inventory)
    known = architecture.problem is None and architecture.id not in _GENERIC
    recipe = Recipe(
        name=f"as-{name}",
        description=f"The formats of {name}, layer by layer.",
        architectures=(architecture.id,) if known else (),
        rules=_rules(formats, f"as in {name}"),
        comfyui=needed_comfyui(formats.values()),
    )
    return DerivedRecipe(recipe, tuple(notes))


def _stored(layer: Layer, origin: str) -> tuple[str, str]:
    """Return a layer's format (empty if it is not quantized), and a label of how it is stored."""
    stored = layer.tensor.stored
    if stored is None:
        plain = next((n for n in _PLAIN.get(layer.tensor.dtype, ()) if n in FORMATS), "")
        return plain, dtype_name(layer.tensor.dtype)
    if stored.label in FORMATS:  # also where the weight would be decoded, not kept
        return stored.label, stored.label
    if not stored.format:
        raise RecipeError(
            f"{layer.name} of {origin} is stored as {stored.label}, which is not one of the "
            f"formats ({', '.join(FORMATS)}). If it is a GGUF, make the recipe from its bits: "
            "'nvfp4 recipe from-gguf', or the source GGUF of Load Recipe"
        )
    return stored.format, stored.label


def _rules(formats: dict[str, str], why: str) -> tuple[Rule, ...]:
    grouped: dict[str, list[str]] = {}
    for layer, fmt in formats.items():
        grouped.setdefault(fmt, []).append(exact_pattern(layer))
    return tuple(Rule(pattern=tuple(names), format=fmt, why=why) for fmt, names in grouped.items())
