"""What each layer loses in each candidate format, measured on captured inputs.

One layer is in memory at a time. Nothing is sampled: how far the model's output moves is for
`quant.probe`, which needs a sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch

from .calibration.input_scale import DEFAULT_HEADROOM, ScaleDecision, decide_scales, parse_policy
from .calibration.records import LayerStatistics
from .calibration.sensitivity import CandidateErrors, LayerSensitivity, Sensitivity
from .calibration.statistics import CalibrationStatistics
from .encode import input_scale_of, output_errors
from .errors import CalibrationError, FormatError
from .formats import FORMATS, EncodedWeight, ScaleRule, WeightFormat, get_format
from .planning.inventory import Layer, take_inventory
from .report import shorten
from .rounding import DEFAULT_ROUNDING, get_rounding
from .sources.base import TensorSource

#: Every format that stores fewer bits: the default candidates.
QUANTIZED_FORMATS = tuple(name for name, fmt in FORMATS.items() if fmt.is_quantized)

#: Called after each layer with bytes done, bytes in all, and the layer's name. May raise to stop.
OnProgress = Callable[[int, int, str], None]


def measure_sensitivity(
    source: TensorSource,
    statistics: CalibrationStatistics,
    formats: Sequence[str] = QUANTIZED_FORMATS,
    *,
    layers: Collection[str] | None = None,
    rounding: str = DEFAULT_ROUNDING,
    input_scale: str = "amax",
    headroom: float = DEFAULT_HEADROOM,
    device: torch.device | str = "cpu",
    on_progress: OnProgress | None = None,
) -> Sensitivity:
    """Measure the weight and output errors of every Linear in every format it can take.

    Args:
        source: the model, unquantized, unprefixed names.
        statistics: of this model; their sampled rows are the inputs.
        formats: candidates; a layer lacks those that refuse its shape.
        layers: only these (default: every Linear that a candidate accepts).
        rounding: how weight scales are chosen.
        input_scale, headroom: policy of the static activation scales, as in a recipe.
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
    rule = get_rounding(rounding)
    candidates = candidate_layers(source, [quantized_format(name) for name in formats], layers)
    decisions = decide_scales(parse_policy(input_scale, headroom), statistics, candidates)
    total = sum(layer.tensor.nbytes for layer, _ in candidates.values())
    measured, done = {}, 0
    for name, (layer, accepting) in candidates.items():
        observed = statistics.layers.get(name)
        weight = source.load(layer.tensor.name).to(device)
        measured[name] = LayerSensitivity(
            name=name,
            shape=layer.shape,
            input_id=observed.input_id if observed else None,
            candidates=_measure(weight, accepting, rule, decisions[name], observed),
        )
        done += layer.tensor.nbytes
        if on_progress:
            on_progress(done, total, name)
    return Sensitivity(source.fingerprint(), rounding, measured)


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


def encode_candidate(
    fmt: WeightFormat, weight: torch.Tensor, rule: ScaleRule, observed: LayerStatistics | None
) -> EncodedWeight:
    """Encode a weight ``[out, in]`` as the pipeline would, given what its input was seen to be.

    Raises `FormatError` when it cannot be stored.
    """
    known = torch.from_numpy(observed.mean_square) if observed is not None else None
    return fmt.encode(weight, rule.for_input(known), measure_error=True)


def _storage(fmt: WeightFormat, rule: ScaleRule) -> tuple[str, bool]:
    """Return what formats share that store a weight in the same bits and multiply otherwise."""
    # gptq makes up for the rounding of inputs, and chooses other bits where they are not rounded
    by_input = rule.name == "gptq" and fmt.activation_divisor is not None
    return str((fmt.marker or {})["format"]), by_input


def _measure(
    weight: torch.Tensor,
    formats: Sequence[WeightFormat],
    rule: ScaleRule,
    decision: ScaleDecision,
    observed: LayerStatistics | None,
) -> Mapping[str, CandidateErrors]:
    """Return one layer's errors by format, encoding it once per kind of storage."""
    encoded: dict[tuple[str, bool], EncodedWeight] = {}
    errors = {}
    for fmt in formats:
        storage = _storage(fmt, rule)
        try:
            if storage not in encoded:
                encoded[storage] = encode_candidate(fmt, weight, rule, observed)
        except FormatError:  # NaN in the weight: nothing is known of what it would cost
            errors[fmt.name] = CandidateErrors()
            continue
        w4a16 = w4a4 = None
        if observed is not None:
            scale = input_scale_of(fmt, decision)
            w4a16, w4a4 = output_errors(weight, encoded[storage], fmt, observed.rows, scale)
        errors[fmt.name] = CandidateErrors(encoded[storage].relative_error, w4a16, w4a4)
    return errors
