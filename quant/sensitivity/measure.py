"""What each layer loses in each candidate format, measured on captured inputs.

One layer is in memory at a time. Nothing is sampled: how far the model's output moves is for
`quant.probe`, which needs a sampler.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch

from ..calibration.input_scale import DEFAULT_POLICY, InputScalePolicy, decide_scales
from ..calibration.statistics import CalibrationStatistics
from ..conversion.choose_encoding import choose_encoding, taken_over
from ..conversion.layer import input_scale_of
from ..conversion.observed_input import ObservedInput, ObservedInputs
from ..errors import CalibrationError, FormatError
from ..formats import FORMATS, WeightFormat, get_format
from ..hardware.usual_formats import MEASURED
from ..planning.inventory import Layer, take_inventory
from ..progress import OnProgress
from ..rounding import DEFAULT_ROUNDING, get_rounding
from ..sources.base import TensorSource
from ..text import shorten
from .artefact import CandidateErrors, LayerSensitivity, Sensitivity

#: Every format that stores fewer bits.
QUANTIZED_FORMATS = tuple(name for name, fmt in FORMATS.items() if fmt.is_quantized)
#: What is measured unless told otherwise: what presets for Blackwell are made of.
DEFAULT_CANDIDATES = MEASURED["blackwell"]
#: What recipes for Turing and Ampere are made of.
INTEGER_CANDIDATES = MEASURED["turing_ampere"]


def measure_sensitivity(
    source: TensorSource,
    statistics: CalibrationStatistics,
    formats: Sequence[str] = DEFAULT_CANDIDATES,
    *,
    layers: Collection[str] | None = None,
    rounding: str = DEFAULT_ROUNDING,
    input_scale: InputScalePolicy = DEFAULT_POLICY,
    device: torch.device | str = "cpu",
    on_progress: OnProgress | None = None,
) -> Sensitivity:
    """Measure the weight and output errors of every Linear in every format it can take.

    Args:
        source: the model, unprefixed names. A layer that is quantized in it already loses nothing
            in the format it has.
        statistics: of this model; their sampled rows are the inputs.
        formats: candidates; a layer lacks those that refuse its shape.
        layers: only these (default: every Linear that a candidate accepts).
        rounding: how the numbers of a weight are chosen.
        input_scale: policy of the static activation scales, as in a recipe.
        device: where weights are encoded.
        on_progress: called after each layer.

    Returns:
        errors by layer and format; unknown for layers without usable rows, or with NaN.

    Raises:
        CalibrationError: the statistics are of another model, or a layer of ``layers`` cannot be
            measured.
        FormatError, RecipeError: a format, or the rounding, is not known.
    """
    statistics.require_model(source.fingerprint(), "the calibration statistics")
    get_rounding(rounding)  # refuses names that are not known before any work
    inputs = ObservedInputs(statistics)
    candidates = candidate_layers(source, [quantized_format(name) for name in formats], layers)
    decisions = decide_scales(input_scale, statistics, candidates)
    total = sum(layer.tensor.nbytes for layer, _ in candidates.values())
    measured, done = {}, 0
    for name in inputs.together(candidates):
        layer, accepting = candidates[name]
        observed = inputs.of(name)
        weight = source.load(layer.tensor.name).to(device)
        errors = {}
        for fmt in accepting:
            scale = input_scale_of(fmt, decisions[name])
            taken = source.stored_tensors(layer.tensor.name, fmt)
            errors[fmt.name] = _measure(weight, fmt, rounding, scale, observed, taken)
        input_id = observed.statistics.input_id if observed else None
        measured[name] = LayerSensitivity(name, layer.shape, input_id, errors)
        done += layer.tensor.nbytes
        if on_progress:
            on_progress(done, total, name)
    in_order = {name: measured[name] for name in candidates}
    return Sensitivity(source.fingerprint(), rounding, in_order)


def quantized_format(name: str) -> WeightFormat:
    """Return a quantized format by name; `FormatError` for others, naming the quantized ones."""
    if name in FORMATS and name not in QUANTIZED_FORMATS:
        known = ", ".join(QUANTIZED_FORMATS)
        raise FormatError(f"{name} quantizes nothing; candidate formats are {known}")
    return get_format(name)


def candidate_layers(
    source: TensorSource, formats: Sequence[WeightFormat], only: Collection[str] | None = None
) -> dict[str, tuple[Layer, tuple[WeightFormat, ...]]]:
    """Return the Linears that at least one format accepts, with the formats that do.

    Raises `CalibrationError` for names in ``only`` that are not among them, or if there is none.
    """
    found = {}
    for layer in take_inventory(source).of_kind("linear"):
        accepting = tuple(fmt for fmt in formats if fmt.refusal(layer.shape) is None)
        if accepting and (only is None or layer.name in only):
            found[layer.name] = (layer, accepting)
    missing = sorted(set(only or ()) - set(found))
    if missing:
        raise CalibrationError(
            f"{source.description} has no Linear that can be quantized named {shorten(missing, 3)}"
        )
    if not found:
        names = ", ".join(fmt.name for fmt in formats) or "none"
        raise CalibrationError(f"no Linear of {source.description} can take a format ({names})")
    return found


def _measure(
    weight: torch.Tensor,
    fmt: WeightFormat,
    rounding: str,
    scale: float | None,
    observed: ObservedInput | None,
    taken: Mapping[str, torch.Tensor] | None,
) -> CandidateErrors:
    """Return one layer's errors in a format; ``taken``: its tensors if the source has them."""
    try:
        if taken is not None:
            chosen = taken_over(taken, tuple(weight.shape), fmt, observed, scale)
        else:
            chosen = choose_encoding(weight, fmt, rounding, observed, scale)
    except FormatError:  # NaN in the weight: nothing is known of what it would cost
        return CandidateErrors()
    error = chosen.error
    return CandidateErrors(
        weight=chosen.encoded.relative_error,
        w4a16=error.w4a16 if error else None,
        w4a4=error.w4a4 if error else None,
    )
