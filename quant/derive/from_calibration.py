"""Derive a recipe from a calibration: find the layers whose inputs do not tolerate rounding.

A calibration describes inputs, not weights. It shows three things about a layer:

- Whether the layer was observed at all. A layer that was never observed may not run in normal use,
  or the model may call it in another way than a Linear layer. Its inputs are unknown, so it stays
  in 16 bits.
- How much its sampled inputs lose when they are rounded as the format does natively, with the
  static scale that the layer would get. For NVFP4, 9 to 10% is usual (normally distributed values
  lose 9.5%). A much larger error means that some values are hundreds of times as large as others.
- How much its largest input differs between runs, and so between prompts. A static scale covers
  the largest observed value times the headroom. If the ranges of a layer differ by more, the next
  prompt may be clipped.

The last two do no harm in a format that does not round activations. ``nvfp4_w4a16`` is such a
format and takes the same space as NVFP4.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..calibration.coverage import is_partial
from ..calibration.input_scale import represented_amax
from ..calibration.records import LayerStatistics
from ..calibration.statistics import CalibrationStatistics
from ..errors import RecipeError
from ..formats import get_format
from ..planning.recipe import Recipe
from .overrides import (
    DerivedRecipe,
    Override,
    count_overrides,
    layers_by_shape,
    quantized_linears,
    with_overrides,
)

DEFAULT_MAX_INPUT_ERROR = 0.12


def recipe_from_statistics(
    statistics: CalibrationStatistics,
    base: Recipe,
    max_input_error: float = DEFAULT_MAX_INPUT_ERROR,
    max_spread: float | None = None,
    careful: str = "nvfp4_w4a16",
    unseen: str = "keep",
) -> DerivedRecipe:
    """Return ``base`` with other formats for layers whose inputs are unknown or lose too much.

    Args:
        statistics: the calibration of the model.
        base: decides which layers are quantized and in which format, the rounding and the scales.
        max_input_error: the largest relative error of the sampled inputs, 0.12 for 12%.
        max_spread: the largest ratio between the amax of two runs; None means the headroom of
            the policy of ``base``, or of ``base`` itself if its policy has none.
        careful: the format of layers that exceed one of these limits.
        unseen: the format of layers that were not observed in full.

    Raises:
        RecipeError: a limit is out of range, or ``base`` quantizes no observed layer.
        FormatError: a format is unknown.
    """
    if max_spread is None:
        policy = base.input_scale
        max_spread = policy.headroom if policy.takes_headroom else base.headroom
    if not 0 < max_input_error < 1 or not max_spread >= 1:
        raise RecipeError(
            "the largest input error must be between 0 and 1 (100%) and the largest spread at "
            f"least 1, not {max_input_error:g} and {max_spread:g}"
        )
    for name in (careful, unseen):
        get_format(name)
    considered = quantized_linears(base, layers_by_shape(statistics.fingerprint.shapes))
    if not any(name in statistics.layers for name in considered):
        raise RecipeError(
            f"recipe {base.name} quantizes none of the layers that the calibration observed; "
            "choose a recipe for this model"
        )
    reference = statistics.coverage(considered).reference_calls
    judged: dict[tuple[str, str], str] = {}  # q, k and v share one input: judge it once
    overrides: dict[str, Override] = {}
    for name, (_, fmt) in considered.items():
        layer = statistics.layers.get(name)
        doubt = _doubt(layer, reference)
        if layer is None or doubt:
            overrides[name] = Override(unseen, doubt)
            continue
        if (layer.input_id, fmt) not in judged:
            judged[layer.input_id, fmt] = _problem(layer, fmt, base, max_input_error, max_spread)
        if judged[layer.input_id, fmt]:
            overrides[name] = Override(careful, judged[layer.input_id, fmt])
    recipe = with_overrides(
        base,
        _different(overrides, {name: fmt for name, (_, fmt) in considered.items()}),
        name=f"{base.name}-calibrated",
        description=f"{base.name}, with other formats where the calibration advises them",
    )
    return DerivedRecipe(recipe, tuple(count_overrides(overrides, considered)))


def _different(
    overrides: Mapping[str, Override], formats: Mapping[str, str]
) -> dict[str, Override]:
    return {name: o for name, o in overrides.items() if o.format != formats[name]}


def _doubt(layer: LayerStatistics | None, reference_calls: int) -> str:
    """Return why the inputs of a layer are unknown, or an empty text if they are known."""
    if layer is None or layer.calls == 0:
        return "never observed"
    if is_partial(layer.calls, reference_calls):
        return "observed in only a part of the model calls"
    if layer.nonfinite_calls:
        return "NaN or infinite inputs"
    return ""


def _problem(
    layer: LayerStatistics, format_name: str, base: Recipe, max_error: float, max_spread: float
) -> str:
    """Return why a format does not suit this input, or an empty text if it does."""
    if get_format(format_name).activation_divisor is None:
        return ""
    if layer.spread > max_spread:
        return f"the largest input differs by more than x {max_spread:g} between runs"
    error = input_error(layer, format_name, base)
    if error is not None and error > max_error:
        return f"the inputs lose more than {max_error:.1%} in {format_name}"
    return ""


def input_error(layer: LayerStatistics, format_name: str, recipe: Recipe) -> float | None:
    """Return ``||x - Q(x)|| / ||x||`` of the sampled inputs as a format rounds them natively.

    Uses the static scale of the recipe. Returns None if the format does not round activations, or
    if no rows were sampled, or if all rows are zero.
    """
    fmt = get_format(format_name)
    if fmt.activation_divisor is None or not len(layer.rows):
        return None
    decision = represented_amax(recipe.input_scale, layer)
    scale = decision.scale_for(fmt.activation_divisor)
    exact = layer.rows.float()
    norm = float(exact.norm())
    rounded = fmt.emulate_activations(layer.rows, scale)
    return float((rounded - exact).norm()) / norm if norm else None
