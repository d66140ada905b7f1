"""Measure the errors of each layer in each candidate format, on the inputs of a calibration.

One layer is in memory at a time. This needs no sampling. `LatentProbe` measures how far the model's
output moves, which needs a sampler.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..calibration.input_scale import DEFAULT_POLICY, InputScalePolicy, ScaleDecision, decide_scales
from ..calibration.statistics import CalibrationStatistics
from ..conversion.choose_encoding import taken_over
from ..conversion.encode_weight import encode_weight
from ..conversion.layer import input_scale_of
from ..conversion.observed_input import ObservedInput, ObservedInputs
from ..conversion.share import cost, share_layers
from ..errors import CalibrationError, FormatError
from ..formats import FORMATS, WeightFormat, get_format
from ..hardware.usual_formats import MEASURED
from ..planning.inventory import Layer, take_inventory
from ..progress import OnProgress, numbered
from ..ranks.alone import ALONE, Ranks
from ..rounding import DEFAULT_ROUNDING, get_rounding
from ..sources.base import TensorSource
from ..text import shorten
from .artefact import CandidateErrors, LayerSensitivity, Sensitivity

#: Every format that stores fewer bits.
QUANTIZED_FORMATS = tuple(name for name, fmt in FORMATS.items() if fmt.is_quantized)
#: The formats measured by default, which presets for Blackwell use.
DEFAULT_CANDIDATES = MEASURED["blackwell"]
#: The formats of recipes for Turing and Ampere.
INTEGER_CANDIDATES = MEASURED["turing_ampere"]
#: The formats of recipes for Ampere, where ComfyUI 0.33 or newer loads the checkpoint.
NEWER_CANDIDATES = MEASURED["ampere"]


def measure_sensitivity(
    source: TensorSource,
    statistics: CalibrationStatistics,
    formats: Sequence[str] = DEFAULT_CANDIDATES,
    *,
    layers: Collection[str] | None = None,
    rounding: str = DEFAULT_ROUNDING,
    input_scale: InputScalePolicy = DEFAULT_POLICY,
    device: torch.device | str = "cpu",
    ranks: Ranks = ALONE,
    on_progress: OnProgress | None = None,
) -> Sensitivity:
    """Measure the weight and output errors of every Linear layer in every format it can take.

    Args:
        source: the model, with names without prefix. A layer that is quantized already loses
            nothing in its own format.
        statistics: calibration of this model; its sampled rows are the inputs.
        formats: the candidate formats; a layer skips those that do not support its shape.
        layers: the layers to measure (default: every Linear layer that can take a candidate).
        rounding: how the codes of a weight are chosen.
        input_scale: policy of the static input scales, as in a recipe.
        device: the device that encodes weights.
        ranks: the ranks that share the layers. All call this with the same arguments, and all get
            the whole result.
        on_progress: called after each layer.

    Returns:
        errors by layer and format; unknown for layers without usable rows, or with NaN.

    Raises:
        CalibrationError: the calibration is from another model, or a layer of ``layers`` cannot be
            measured.
        FormatError, RecipeError: a format, or the rounding, is unknown.
    """
    statistics.require_model(source.fingerprint())
    get_rounding(rounding)  # refuses unknown names before any work
    candidates = candidate_layers(source, [quantized_format(name) for name in formats], layers)
    decisions = decide_scales(input_scale, statistics, candidates)
    costs = {
        name: len(accepting) * cost(layer.shape, rounding)
        for name, (layer, accepting) in candidates.items()
    }
    mine = share_layers(costs, rounding, statistics, ranks)
    own = _Measurement(source, statistics, rounding, torch.device(device), decisions).of(
        {name: candidates[name] for name in candidates if name in mine},
        sum(layer.tensor.nbytes for layer, _ in candidates.values()),
        ranks.counted(on_progress),
    )
    parts = _of_all(Sensitivity(source.fingerprint(), rounding, own), ranks)
    found = {name: layer for part in parts for name, layer in part.layers.items()}
    return replace(parts[0], layers={name: found[name] for name in candidates})


@dataclass(frozen=True)
class _Measurement:
    """What decides the errors of a layer."""

    source: TensorSource
    statistics: CalibrationStatistics
    rounding: str
    device: torch.device
    decisions: Mapping[str, ScaleDecision]

    def of(
        self,
        candidates: Mapping[str, tuple[Layer, tuple[WeightFormat, ...]]],
        total: int,
        on_progress: OnProgress | None,
    ) -> dict[str, LayerSensitivity]:
        """Measure layers in the formats given with them. ``total``: bytes of all to be done."""
        inputs = ObservedInputs(self.statistics)
        measured, done = {}, 0
        for number, name in enumerate(inputs.together(candidates), 1):
            layer, accepting = candidates[name]
            measured[name] = self._layer(layer, accepting, inputs.of(name))
            done += layer.tensor.nbytes
            if on_progress:
                on_progress(done, total, numbered("layer", number, len(candidates), name))
        return measured

    def _layer(
        self, layer: Layer, formats: Sequence[WeightFormat], observed: ObservedInput | None
    ) -> LayerSensitivity:
        weight = self.source.load(layer.tensor.name).to(self.device)
        errors = {}
        for fmt in formats:
            scale = input_scale_of(fmt, self.decisions[layer.name])
            taken = self.source.stored_tensors(layer.tensor.name, fmt)
            errors[fmt.name] = _measure(weight, fmt, self.rounding, scale, observed, taken)
        input_id = observed.statistics.input_id if observed else None
        return LayerSensitivity(layer.name, layer.shape, input_id, errors)


def quantized_format(name: str) -> WeightFormat:
    """Return a quantized format by name.

    Raises `FormatError`, with the known names, for other formats.
    """
    if name in FORMATS and name not in QUANTIZED_FORMATS:
        known = ", ".join(QUANTIZED_FORMATS)
        raise FormatError(f"{name} quantizes nothing; choose one of {known}")
    return get_format(name)


def candidate_layers(
    source: TensorSource, formats: Sequence[WeightFormat], only: Collection[str] | None = None
) -> dict[str, tuple[Layer, tuple[WeightFormat, ...]]]:
    """Return the Linear layers that can take at least one format, with the formats they can take.

    Raises `CalibrationError` if there is none, or if ``only`` names others.
    """
    found = {}
    for layer in take_inventory(source).of_kind("linear"):
        accepting = tuple(fmt for fmt in formats if fmt.refusal(layer.shape) is None)
        if accepting and (only is None or layer.name in only):
            found[layer.name] = (layer, accepting)
    missing = sorted(set(only or ()) - set(found))
    if missing:
        raise CalibrationError(
            f"{source.description} has no Linear layer that can be quantized named "
            f"{shorten(missing, 3)}; check the names with nvfp4 inspect"
        )
    if not found:
        names = ", ".join(fmt.name for fmt in formats) or "none"
        raise CalibrationError(
            f"no Linear layer of {source.description} can take a format ({names}); choose other "
            "formats"
        )
    return found


def _of_all(own: Sensitivity, ranks: Ranks) -> list[Sensitivity]:
    """Return what each rank measured."""
    if ranks.size == 1:
        return [own]
    return [Sensitivity.from_json(data) for data in ranks.gather("layers", own.to_json())]


def _measure(
    weight: torch.Tensor,
    fmt: WeightFormat,
    rounding: str,
    scale: float | None,
    observed: ObservedInput | None,
    taken: Mapping[str, torch.Tensor] | None,
) -> CandidateErrors:
    """Return one layer's errors in a format. ``taken``: its tensors, if the source has them."""
    try:
        if taken is not None:
            chosen = taken_over(taken, tuple(weight.shape), fmt, observed, scale)
        else:
            chosen = encode_weight(weight, fmt, rounding, observed, scale)
    except FormatError:  # NaN in the weight: the errors are unknown
        return CandidateErrors()
    error = chosen.error
    return CandidateErrors(
        weight=chosen.encoded.relative_error,
        w4a16=error.w4a16 if error else None,
        w4a4=error.w4a4 if error else None,
    )
