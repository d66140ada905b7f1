"""Probe how far a result moves if only one unit is quantized: an input, a layer, or a block.

The result is that of a model call or, better, of a whole sampling. The probe computes it again once
per unit and format, with forward hooks that replace the outputs of the unit's layers by those of
quantized layers. It never changes the weights of the model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..calibration.input_scale import DEFAULT_POLICY, InputScalePolicy, decide_scales
from ..calibration.observed_layers import find_linears
from ..calibration.statistics import CalibrationStatistics
from ..conversion.observed_input import ObservedInputs
from ..errors import CalibrationError
from ..planning.inventory import Layer
from ..progress import OnProgress, numbered
from ..sources.base import TensorSource
from .artefact import Sensitivity
from .measure import candidate_layers, quantized_format
from .probe_record import ProbeRecord, ProbeRun, UnitShift
from .probed_layers import (
    EncodingProgress,
    LayerEncoder,
    QuantizedLinear,
    encoded_layers,
    replaced,
)
from .undisturbed import require_no_dropout, same_random_state
from .whole import Formats, WholeShift, formats_digest, relative_shift

ProbeUnit = Literal["input", "layer", "block"]

#: The sigma of the result of a whole sampling, which ends there.
SAMPLED = 0.0
# Where a record names the format of a unit, this stands for a mix of formats.
_WHOLE = "whole"
# A saved probe is not continued by a version that computes other numbers. Raise it with them.
_NUMBERS = 2


@dataclass(frozen=True)
class _Probed:
    """What was found for one model call or sampling."""

    sigma: float
    shifts: Mapping[ProbeRun, UnitShift]


@dataclass
class _Squares:
    """Squared norms, summed over model calls at one sigma."""

    difference: float = 0.0
    reference: float = 0.0

    def squared_shift(self) -> float:
        """Return the relative squared shift; NaN if the reference is zero or not finite."""
        if not 0 < self.reference < math.inf:
            return math.nan
        return self.difference / self.reference


class LatentProbe:
    """Collect shifts of a model's output over any number of results. Not thread-safe.

    Keeps every probed weight packed in CPU memory, with 4.5 bits per value for NVFP4 and 8 for
    float8.
    """

    def __init__(
        self,
        source: TensorSource,
        sensitivity: Sensitivity,
        *,
        formats: Sequence[str] = ("nvfp4",),
        unit: ProbeUnit = "input",
        statistics: CalibrationStatistics | None = None,
        input_scale: InputScalePolicy = DEFAULT_POLICY,
        device: torch.device | str = "cpu",
        on_progress: OnProgress | None = None,
    ):
        """Encode the layers, one at a time.

        Args:
            source: the model, unquantized, with names without prefix.
            sensitivity: sensitivity of this model, with output errors in the formats; `result` adds
                the shifts to it.
            formats: the formats to probe. `Sensitivity.cost` only estimates the others from these,
                so probe all formats that a mix may choose.
            unit: the layers to quantize together: those that share an input (q, k and v), each
                layer alone, or those of a block. The shift of a unit is divided among its layers.
                Layers of one input round the same values, so their errors are not independent.
            statistics: calibration of this model, for static input scales and rounding.
            input_scale: policy of the static input scales, as in a recipe.
            device: the device that encodes weights.
            on_progress: called after each layer.

        Raises:
            CalibrationError: sensitivity or calibration are from another model, or the sensitivity
                was not measured for one of the formats.
            FormatError: a format is unknown.
        """
        self._fingerprint = fingerprint = source.fingerprint()
        sensitivity.require_model(fingerprint)
        if statistics is not None:
            statistics.require_model(fingerprint)
        self._sensitivity = sensitivity
        encode = LayerEncoder(source, sensitivity.rounding, device)
        found = _layers_by_format(source, sensitivity, formats)
        counter = EncodingProgress(found, on_progress)
        self._linears: dict[str, dict[str, QuantizedLinear]] = {}
        self._units: dict[str, dict[str, tuple[str, ...]]] = {}
        inputs = ObservedInputs(statistics)
        for format_name, layers in found.items():
            decisions = decide_scales(input_scale, statistics, layers)
            fmt = quantized_format(format_name)
            linears = dict(encoded_layers(encode, fmt, layers, decisions, inputs, counter))
            self._linears[format_name] = linears
            encoded = [layer for name, layer in layers.items() if name in linears]
            self._units[format_name] = _units(encoded, unit, sensitivity)
        self._settings = {"input_scale": asdict(input_scale), "statistics": _identity(statistics)}
        self._probed: dict[str, _Probed] = {}
        self._whole: dict[tuple[str, str], tuple[Formats, UnitShift]] = {}

    @property
    def units(self) -> Mapping[str, tuple[str, ...]]:
        """Layers by unit, over all formats."""
        return {unit: names for units in self._units.values() for unit, names in units.items()}

    @property
    def runs(self) -> int:
        """How often each probed result is computed again: once per unit and format."""
        return sum(map(len, self._units.values()))

    @property
    def steps(self) -> tuple[ProbeRun, ...]:
        """Format and unit of every run, in order."""
        return tuple(run for run, _ in self._runs())

    @property
    def key(self) -> str:
        """A digest of all that decides a shift, except the sampling itself.

        That is the model, the rounding, the formats, the layers of every unit, the calibration, the
        policy of the input scales, and the version of torch.
        """
        decisive = {
            **self._settings,
            "numbers": [_NUMBERS, torch.__version__],
            "model": self._fingerprint.to_json(),
            "rounding": self._sensitivity.rounding,
            "units": self._units,
        }
        text = json.dumps(decisive, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def calls(self) -> int:
        """Number of results probed so far: model calls, or samplings."""
        return len(self._probed)

    @property
    def unreached(self) -> tuple[str, ...]:
        """Layers that a probed result did not run, so their shifts are unknown."""
        shifts = [shift for probed in self._probed.values() for shift in probed.shifts.values()]
        return tuple(sorted({name for shift in shifts for name in shift.unreached}))

    def probe(
        self,
        root: nn.Module,
        run: Callable[[], Tensor],
        reference: Tensor,
        sigma: float,
        on_unit: OnProgress | None = None,
        record: ProbeRecord | None = None,
    ) -> None:
        """Probe one model call or sampling: compute it again once per unit and format.

        Restores torch's random state afterwards. If ``on_unit`` or the model raises an exception,
        all hooks are removed and this call is dropped; earlier calls are kept. With a ``record``,
        its finished units are on disk, and the next probe with that record begins after them.

        Args:
            root: the module tree with the layers, under their names in the source.
            run: computes the result again from the same inputs, in the form of ``reference``.
            reference: the model's own output or sampled latent, any shape.
            sigma: the noise level of the call, or `SAMPLED`.
            on_unit: called before each run with the number of runs done, the number of all runs,
                and the next one, such as ``unit 3 of 62: blocks.0.self_attn.q in nvfp4``.
            record: where to save each unit. A sampling whose record has the key of an earlier one
                replaces that one in the result.

        Raises:
            CalibrationError: the model has active dropout, or has none of the probed layers, or the
                record cannot be written.
        """
        require_no_dropout(root)
        modules = find_linears(root, self._names())
        with torch.no_grad():
            exact = reference.detach().float()
            shifts = dict(record.begin(exact)) if record else {}
            norm = float(exact.norm()) ** 2
            for number, (key, names) in enumerate(self._runs()):
                if key in shifts:
                    continue
                if on_unit:
                    text = numbered("unit", number + 1, self.runs, f"{key[1]} in {key[0]}")
                    on_unit(number, self.runs, text)
                present = {name: modules[name] for name in names if name in modules}
                linears = self._linears[key[0]]
                with replaced(present, linears) as reached, same_random_state(reference.device):
                    shifted = run().detach().float()
                difference = float((shifted - exact).norm()) ** 2
                unreached = tuple(sorted(set(names) - reached))
                shifts[key] = UnitShift(difference, norm, unreached)
                if record:
                    record.add(key, shifts[key])
        in_order = {key: shifts[key] for key, _ in self._runs()}
        name = record.key if record else f"call {self.calls + 1}"
        self._probed[name] = _Probed(round(float(sigma), 6), in_order)

    def can_sample(self, formats: Formats) -> bool:
        """Whether all these layers were encoded in these formats, so that they can be sampled."""
        return all(name in self._linears.get(fmt, ()) for name, fmt in formats.items())

    def sample_whole(
        self,
        root: nn.Module,
        run: Callable[[], Tensor],
        reference: Tensor,
        mixes: Sequence[Formats],
        on_mix: OnProgress | None = None,
        record: ProbeRecord | None = None,
    ) -> None:
        """Compute a result with all layers of each mix quantized, to compare the mixes.

        Mixes that `can_sample` refuses are left out. For the arguments and errors see `probe`,
        which comes before and reads the record.
        """
        mixes = [formats for formats in mixes if self.can_sample(formats)]
        modules = find_linears(root, self._names())
        with torch.no_grad():
            exact = reference.detach().float()
            norm = float(exact.norm()) ** 2
            for number, formats in enumerate(mixes):
                digest = formats_digest(formats)
                shift = record.known.get((_WHOLE, digest)) if record else None
                if shift is None:
                    if on_mix:
                        on_mix(number, len(mixes), numbered("mix", number + 1, len(mixes), "whole"))
                    linears = {name: self._linears[fmt][name] for name, fmt in formats.items()}
                    present = {name: modules[name] for name in linears if name in modules}
                    with replaced(present, linears) as reached, same_random_state(exact.device):
                        shifted = run().detach().float()
                    difference = float((shifted - exact).norm()) ** 2
                    shift = UnitShift(difference, norm, tuple(sorted(set(linears) - reached)))
                    if record:
                        record.add((_WHOLE, digest), shift)
                earlier = sum(known == digest for _, known in self._whole)
                sampling = record.key if record else f"call {earlier + 1}"
                self._whole[sampling, digest] = (formats, shift)

    def _whole_shifts(self) -> Iterator[WholeShift]:
        """Yield the shift of each mix over all samplings with it."""
        by_digest: dict[str, list[tuple[Formats, UnitShift]]] = {}
        for (_, digest), found in self._whole.items():
            by_digest.setdefault(digest, []).append(found)
        for found in by_digest.values():
            shifts = [shift for _, shift in found]
            total = relative_shift(
                math.fsum(s.difference for s in shifts), math.fsum(s.reference for s in shifts)
            )
            if math.isfinite(total):
                yield WholeShift(found[0][0], total, len(found))

    def result(self) -> Sensitivity:
        """Return the sensitivity with the shifts of the probed formats, and of whole mixes.

        The shift stays unknown for layers that a probed call did not run, and if the output was not
        finite. Raises `CalibrationError` if no call was probed.
        """
        if not self._probed:
            raise CalibrationError("no model call was probed: sample with the probed model first")
        result, unreached, totals = self._sensitivity, set(self.unreached), self._totals()
        for format_name, units in self._units.items():
            shifts: dict[str, dict[float, float]] = {}
            for unit, names in units.items():
                reached = [name for name in names if name not in unreached]
                for name, share in self._shares(reached, format_name).items():
                    shifts[name] = {
                        sigma: math.sqrt(share * squares[format_name, unit].squared_shift())
                        for sigma, squares in sorted(totals.items())
                    }
            result = result.with_latents(format_name, shifts)
        return replace(result, whole=tuple(self._whole_shifts()))

    def _totals(self) -> dict[float, dict[ProbeRun, _Squares]]:
        """Return the squares of each run, summed over the results at each sigma."""
        totals: dict[float, dict[ProbeRun, _Squares]] = {}
        for probed in self._probed.values():
            at_sigma = totals.setdefault(probed.sigma, {})
            for run, shift in probed.shifts.items():
                total = at_sigma.setdefault(run, _Squares())
                total.difference += shift.difference
                total.reference += shift.reference
        return totals

    def _runs(self) -> Iterator[tuple[ProbeRun, tuple[str, ...]]]:
        for format_name, units in self._units.items():
            for unit, names in units.items():
                yield (format_name, unit), names

    def _names(self) -> set[str]:
        return {name for linears in self._linears.values() for name in linears}

    def _shares(self, names: Collection[str], format_name: str) -> dict[str, float]:
        """Return each layer's share of its unit's squared shift. The shares add up to one.

        The shares are proportional to the squared output errors. An unknown error counts as the
        mean of the known ones.
        """
        errors = {n: self._sensitivity.candidates(n)[format_name].w4a4 for n in names}
        known = [error**2 for error in errors.values() if error is not None]
        mean = sum(known) / len(known) if any(known) else 1.0
        weights = {
            name: error**2 if error is not None and any(known) else mean
            for name, error in errors.items()
        }
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}


def _identity(statistics: CalibrationStatistics | None) -> Any:
    """Return what tells one calibration from another, as JSON values."""
    if statistics is None:
        return None
    moments = [layer.moments for layer in statistics.inputs.values() if layer.moments]
    return {
        "runs": [run.to_json() for run in statistics.runs],
        "rows": statistics.rows_per_layer,
        "amax": {name: layer.amax for name, layer in statistics.inputs.items()},
        "moments": sorted(part.id for each in moments for part in each.parts),
    }


def _layers_by_format(
    source: TensorSource, sensitivity: Sensitivity, formats: Sequence[str]
) -> dict[str, dict[str, Layer]]:
    """Return the measured layers of each format, by name."""
    found = {}
    for name in dict.fromkeys(formats):
        fmt = quantized_format(name)
        measured = [n for n in sensitivity.layers if name in sensitivity.candidates(n)]
        if not measured:
            raise CalibrationError(
                f"the sensitivity was not measured for {name}; measure it with that format first"
            )
        candidates = candidate_layers(source, (fmt,), measured)
        found[name] = {layer: candidate for layer, (candidate, _) in candidates.items()}
    return found


def _units(
    layers: Collection[Layer], unit: ProbeUnit, sensitivity: Sensitivity
) -> dict[str, tuple[str, ...]]:
    """Return layers grouped by input or by block.

    A layer without an input or block is its own unit, and so is every layer with ``layer``.
    """
    units: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        name = layer.name
        if unit == "block" and layer.block:
            name = f"{layer.block.container}.{layer.block.index}"
        elif unit == "input":
            name = sensitivity.layers[name].input_id or name
        units[name] = (*units.get(name, ()), layer.name)
    return units
