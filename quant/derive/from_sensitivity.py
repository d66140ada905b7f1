"""Derive a recipe from a sensitivity: each layer gets the smallest format below an error limit."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import RecipeError
from ..formats import FORMATS, get_format
from ..planning.recipe import Recipe
from ..sensitivity.artefact import Sensitivity
from .overrides import (
    DerivedRecipe,
    Override,
    count_overrides,
    layers_by_shape,
    quantized_linears,
    with_overrides,
)

DEFAULT_MAX_ERROR = 0.08


def recipe_from_sensitivity(
    sensitivity: Sensitivity,
    base: Recipe,
    max_error: float = DEFAULT_MAX_ERROR,
    formats: Sequence[str] = (),
    otherwise: str = "keep",
) -> DerivedRecipe:
    """Return ``base`` with the smallest format of each Linear layer whose error is small enough.

    Only layers that ``base`` quantizes can get another format. The error is the relative error of
    the layer's own output when the format runs natively (W4A4 for NVFP4). The smallest format is
    the one with the fewest bits; among equals, the order of the registry decides, so NVFP4 comes
    before ``nvfp4_w4a16``. Layers that share an input get one format. An unknown error counts as
    too large.

    Args:
        sensitivity: what each layer loses in each format.
        base: decides which layers are quantized, the rounding and the scales.
        max_error: the limit, 0.08 for 8%.
        formats: the formats to choose from; empty means all that were measured.
        otherwise: the format of layers whose error is too large in every format.

    Raises:
        RecipeError: the limit is out of range, a format was not measured, or ``base`` quantizes
            no measured layer.
        FormatError: a format is unknown.
    """
    if not 0 < max_error < 1:
        raise RecipeError(f"the largest error must be between 0 and 1 (100%), not {max_error:g}")
    get_format(otherwise)
    ladder = _by_cost(sensitivity, formats)
    shapes = dict(sensitivity.fingerprint.shapes)  # includes layers that were not measured
    shapes |= {name: layer.shape for name, layer in sensitivity.layers.items()}
    considered = quantized_linears(base, layers_by_shape(shapes))
    if not considered:
        raise RecipeError(
            f"recipe {base.name} quantizes none of the layers that were measured; "
            "choose a recipe for this model"
        )
    overrides: dict[str, Override] = {}
    for names in sensitivity.by_input(considered):
        chosen = _choose(names, sensitivity, ladder, max_error, otherwise)
        overrides |= {name: chosen for name in names if considered[name][1] != chosen.format}
    recipe = with_overrides(
        base,
        overrides,
        name=f"{base.name}-measured",
        description=f"{base.name}, with the error of each layer at most {max_error:.3%}".replace(
            ".000%", "%"
        ),
    )
    return DerivedRecipe(recipe, tuple(count_overrides(overrides, considered)))


def _by_cost(sensitivity: Sensitivity, formats: Sequence[str]) -> list[str]:
    """Return the formats to try, smallest first."""
    measured = sensitivity.formats
    names = [get_format(name).name for name in formats] or list(measured)
    missing = [name for name in names if name not in measured]
    if missing:
        raise RecipeError(
            f"{missing[0]} was not measured; choose from the measured formats: "
            f"{', '.join(measured)}"
        )
    order = list(FORMATS)
    return sorted(names, key=lambda name: (FORMATS[name].bits, order.index(name)))


def _choose(
    names: Sequence[str],
    sensitivity: Sensitivity,
    ladder: Sequence[str],
    max_error: float,
    otherwise: str,
) -> Override:
    """Return the format of layers that share one input, and the reason for it."""
    unknown = True
    for name in ladder:
        errors = [_error(sensitivity, layer, name) for layer in names]
        known = [error for error in errors if error is not None]
        if len(known) == len(errors):
            unknown = False
            if max(known) <= max_error:
                return Override(name, f"measured error at most {max_error:.2%}")
    if unknown:
        return Override(otherwise, "the error is unknown")
    return Override(otherwise, f"the error is above {max_error:.2%} in every format")


def _error(sensitivity: Sensitivity, layer: str, format_name: str) -> float | None:
    candidate = sensitivity.candidates(layer).get(format_name)
    return candidate.w4a4 if candidate else None
