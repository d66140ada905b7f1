"""A recipe by what calibration saw: which inputs can be rounded, and which are not known.

Statistics are of inputs, not of weights. They tell three things about a layer:

- whether it was observed at all. What never was may not be called in normal use, or be called by
  another way than a Linear; nothing is known of it, so it is left in 16 bits.
- how much its sampled inputs lose when they are rounded as the format does natively, with the
  static scale it would get. 9 to 10% is usual for NVFP4 (normally distributed values lose 9.5%);
  much more comes of values beside others hundreds of times as large.
- how far its largest input differs between runs, so between prompts. A static scale covers the
  largest seen times the headroom; a layer whose ranges differ by more may be clipped by the next.

The last two are harmless where activations are not rounded: in ``nvfp4_w4a16``, as small as NVFP4.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
    """Give layers whose inputs do not bear rounding, or are not known, another format.

    Args:
        statistics: calibration of the model.
        base: says which layers are quantized at all and in which format, and the numbers.
        max_input_error: largest relative error of the sampled inputs, 0.12 for 12%.
        max_spread: largest ratio of the amax of two runs; None: the headroom of ``base``.
        careful: the format of layers beyond either.
        unseen: the format of layers that were not observed in full.

    Raises:
        RecipeError: a limit that is none, or no observed layer that ``base`` quantizes.
        FormatError: an unknown format.
    """
    max_spread = base.headroom if max_spread is None else max_spread
    if not 0 < max_input_error < 1 or not max_spread >= 1:
        raise RecipeError(
            "the largest input error lies between 0 and 1 (100%) and the largest spread is at "
            f"least 1, not {max_input_error:g} and {max_spread:g}"
        )
    for name in (careful, unseen):
        get_format(name)
    considered = quantized_linears(base, layers_by_shape(statistics.fingerprint.shapes))
    if not any(name in statistics.layers for name in considered):
        raise RecipeError(f"recipe {base.name} quantizes none of the layers that were observed")
    reference = statistics.coverage(considered).reference_calls
    judged: dict[tuple[str, str], str] = {}  # q, k and v have one input
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
        description=f"{base.name}, with other formats where calibration advises against it",
    )
    return DerivedRecipe(recipe, tuple(count_overrides(overrides, considered)))


def _different(
    overrides: Mapping[str, Override], formats: Mapping[str, str]
) -> dict[str, Override]:
    return {name: o for name, o in overrides.items() if o.format != formats[name]}


def _doubt(layer: LayerStatistics | None, reference_calls: int) -> str:
    """Return why nothing can be said of a layer, empty if something can."""
    if layer is None or layer.calls == 0:
        return "never observed"
    if is_partial(layer.calls, reference_calls):
        return "observed in a part of the calls only"
    if layer.nonfinite_calls:
        return "NaN or infinite inputs"
    return ""


def _problem(
    layer: LayerStatistics, format_name: str, base: Recipe, max_error: float, max_spread: float
) -> str:
    """Return why a format is not for this input, empty if it is."""
    if get_format(format_name).activation_divisor is None:
        return ""
    if spread(layer) > max_spread:
        return f"largest input differs more than x {max_spread:g} between runs"
    error = input_error(layer, format_name, base)
    if error is not None and error > max_error:
        return f"inputs lose more than {max_error:.1%} in {format_name}"
    return ""


def spread(layer: LayerStatistics) -> float:
    """Return the largest amax of a run over the smallest; 1 for a single run."""
    peaks = [float(layer.call_amax[layer.run == run].max()) for run in np.unique(layer.run)]
    positive = [peak for peak in peaks if peak > 0]
    return max(positive) / min(positive) if positive else 1.0


def input_error(layer: LayerStatistics, format_name: str, recipe: Recipe) -> float | None:
    """Return ``||x - Q(x)|| / ||x||`` of the sampled inputs as a format rounds them natively.

    With the static scale of the recipe; None without sampled rows, or where all are zero.
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
