"""A recipe that gives every layer the format it has in an existing quantized checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch

from ..errors import RecipeError
from ..formats import FORMATS, WeightFormat
from ..sources import TensorSource
from ..sources.base import TensorInfo
from ..sources.stored_layers import StoredLayer, read_layout
from .architectures import detect_architecture
from .exact_recipe import exact_pattern
from .inventory import Inventory, inventory_of
from .overrides import DerivedRecipe
from .recipe import Recipe, Rule

# Architectures that say nothing of which model it is.
_GENERIC = ("transformer", "unknown")
# What weights of these dtypes are without a marker: plain casts, or scaled in older ways.
_BY_DTYPE = {
    torch.float8_e4m3fn: ("float8_e4m3fn",),
    torch.float8_e5m2: ("float8_e5m2", "float8_e4m3fn"),
    torch.int8: ("int8_tensorwise",),
}
_FULL_PRECISION = "full_precision_matrix_mult"


def recipe_from_checkpoint(checkpoint: TensorSource, name: str) -> DerivedRecipe:
    """Return the recipe a checkpoint could have been made by: layers by name, all else kept.

    Rounding and scales are those of a new recipe: a file does not say how its numbers were
    chosen. Layers that are not quantized there are kept as the source will have them.

    Args:
        checkpoint: unprefixed names; of this or another tool.
        name: for messages and reports.

    Raises:
        CheckpointError: a marker is damaged.
        RecipeError: it holds no quantized layer, or one in a format not known here.
    """
    layers = read_layout(checkpoint)
    formats = {n: fmt for n, la in layers.items() if (fmt := _format(la, name)) is not None}
    if not formats:
        raise RecipeError(f"{name} holds no quantized layer; its choices are all 'keep'")
    inventory = _logical(layers, formats)
    linears = {n: f for n, f in formats.items() if inventory.layers[n].kind == "linear"}
    notes = [
        "as stored there: "
        + ", ".join(f"{count} {fmt}" for fmt, count in Counter(linears.values()).most_common())
    ]
    others = [n for n in formats if n not in linears]
    if others:
        notes.append(f"not taken over, no Linear: {', '.join(others)}")
    notes += _substitutes(layers, linears)
    grouped: dict[str, list[str]] = {}
    for layer, fmt in linears.items():
        grouped.setdefault(fmt, []).append(exact_pattern(layer))
    architecture = detect_architecture(inventory)
    known = architecture.problem is None and architecture.id not in _GENERIC
    recipe = Recipe(
        name=f"as-{name}",
        description=f"The formats of {name}, layer by layer.",
        architectures=(architecture.id,) if known else (),
        rules=tuple(
            Rule(pattern=tuple(names), format=fmt, why=f"as in {name}")
            for fmt, names in grouped.items()
        ),
    )
    return DerivedRecipe(recipe, tuple(notes))


def _format(layer: StoredLayer, origin: str) -> str | None:
    """Return the name of the format a layer is stored in, None where it is not quantized."""
    if layer.marker is not None:
        if layer.format is None:
            raise RecipeError(
                f"{layer.name} of {origin} is stored as {layer.format_name}, which is not known "
                f"here; the formats are {', '.join(FORMATS)}"
            )
        return layer.format.name
    weight = layer.tensors.get("weight")
    if weight is None or len(weight.shape) != 2:
        return None
    for name in _BY_DTYPE.get(weight.dtype, ()):
        if name in FORMATS:
            return name
    if weight.dtype.is_floating_point and weight.dtype not in _BY_DTYPE:
        return None
    if weight.dtype is torch.uint8 and "weight_scale_2" in layer.tensors:
        return "nvfp4"  # as ModelOpt stores it
    raise RecipeError(
        f"{layer.name} of {origin} holds {weight.dtype} without saying in which format"
    )


def _substitutes(layers: Mapping[str, StoredLayer], formats: Mapping[str, str]) -> list[str]:
    """Say where a layer gets something else than it has."""
    notes = []
    unmarked = [n for n in formats if layers[n].marker is None]
    if unmarked:
        notes.append(f"{len(unmarked)} layers have no marker and go by their dtype")
    multiplied = [
        n
        for n, fmt in formats.items()
        if (layers[n].marker or {}).get(_FULL_PRECISION) and not _is_w4a16(FORMATS[fmt])
    ]
    if multiplied:
        notes.append(
            f"{len(multiplied)} layers are multiplied in 16 bits there; no format here does that "
            f"with {formats[multiplied[0]]}, so they will be multiplied natively"
        )
    return notes


def _is_w4a16(fmt: WeightFormat) -> bool:
    return bool((fmt.marker or {}).get(_FULL_PRECISION))


def _logical(layers: Mapping[str, StoredLayer], formats: Mapping[str, str]) -> Inventory:
    """Return the layers as the unquantized model has them, to recognise kinds and model."""
    return inventory_of(
        TensorInfo(
            f"{name}.weight" if "weight" in la.tensors else name,
            la.shape(),
            torch.bfloat16 if name in formats else la.weight.dtype,
        )
        for name, la in layers.items()
    )
