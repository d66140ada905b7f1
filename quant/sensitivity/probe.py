"""Probe how far a result moves if only one unit is quantized: an input, a layer, or a block.

The result is that of a model call or, better, of a whole sampling. The probe computes it again for
units and formats, one at a time, with forward hooks that replace the outputs of the unit's layers
by those of quantized layers. It never changes the weights of the model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..calibration.input_scale import DEFAULT_POLICY, InputScalePolicy, decide_scales
from ..calibration.observed_layers import find_linears
from ..calibration.statistics import CalibrationStatistics
from ..conversion.observed_input import ObservedInputs
from ..planning.inventory import Layer
from ..planning.plan import Plan
from ..progress import OnProgress, numbered
from ..sources.base import TensorSource
from .artefact import Sensitivity
from .findings import Findings, ProbedResult
from .measure import quantized_format
from .probe_record import ProbeRecord, ProbeRun, UnitShift
from .probe_units import ProbeUnit, layers_by_format, probe_order, runs_of, units_of
from .probed_layers import (
    EncodingProgress,
    LayerEncoder,
    QuantizedLinear,
    encoded_layers,
    noted,
    replaced,
)
from .undisturbed import require_no_dropout, same_random_state
from .whole import Formats, formats_digest

#: The sigma of the result of a whole sampling, which ends there.
SAMPLED = 0.0
#: Called with the number of runs done, the number of all runs, and the next run. It may raise an
#: exception to stop.
OnUnit = Callable[[int, int, ProbeRun], None]
# Where a record names the format of a unit, this stands for a mix of formats.
_WHOLE = "whole"
# A saved probe is not continued by a version that computes other numbers. Raise it with them.
_NUMBERS = 2


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
        plan: Plan | None = None,
        stop_below: float | None = None,
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
            plan: the plan to mix. Then only the layers that it quantizes are probed, and its size
                decides which of them matter most.
            stop_below: ends each probe once the rest is expected to lower the squared error of a
                mix by no more than this share (see `STOP_BELOW`); the most useful units come first,
                and the shifts of the others are estimated. 0 runs all, in that order. None runs all
                in the order of the layers.
            statistics: calibration of this model, for static input scales and rounding.
            input_scale: policy of the static input scales, as in a recipe.
            device: the device that encodes weights.
            on_progress: called after each layer.

        Raises:
            CalibrationError: sensitivity or calibration are from another model, the sensitivity
                was not measured for one of the formats, or the plan quantizes no such layer.
            FormatError: a format is unknown.
        """
        self._fingerprint = fingerprint = source.fingerprint()
        sensitivity.require_model(fingerprint)
        if statistics is not None:
            statistics.require_model(fingerprint)
        self._sensitivity = sensitivity
        found = layers_by_format(source, sensitivity, formats, plan)
        encode = LayerEncoder(source, sensitivity.rounding, device)
        self._linears = _encoded(encode, found, statistics, input_scale, on_progress)
        self._units = {
            name: units_of(
                [la for la in each.values() if la.name in self._linears[name]], unit, sensitivity
            )
            for name, each in found.items()
        }
        layers = {name: layer for each in found.values() for name, layer in each.items()}
        self._order = probe_order(self._units, layers, sensitivity, plan)
        self._runs, self._stop_below = runs_of(self._units), stop_below
        self._settings = {"input_scale": asdict(input_scale), "statistics": _identity(statistics)}
        self._findings = Findings(sensitivity, self._units)

    @property
    def units(self) -> Mapping[str, tuple[str, ...]]:
        """Layers by unit, over all formats."""
        return {unit: names for units in self._units.values() for unit, names in units.items()}

    @property
    def runs(self) -> int:
        """How often each probed result is computed again, at most: once per unit and format."""
        return len(self._runs)

    @property
    def is_selective(self) -> bool:
        """Whether the probe ends before it has run all units, if the rest matters little.

        Without any output error of a layer, nothing tells which matter.
        """
        return bool(self._stop_below) and bool(self._order.runs)

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
        return self._findings.calls

    @property
    def measured(self) -> tuple[int, ...]:
        """How many runs each probed result took, also those of an interrupted probe."""
        return self._findings.measured

    @property
    def unreached(self) -> tuple[str, ...]:
        """Layers that a probed result did not run, so their shifts are unknown."""
        return self._findings.unreached

    def probe(
        self,
        root: nn.Module,
        run: Callable[[], Tensor],
        reference: Tensor,
        sigma: float,
        on_unit: OnUnit | None = None,
        record: ProbeRecord | None = None,
        is_enough: Callable[[], bool] | None = None,
    ) -> None:
        """Probe one model call or sampling: compute it again for each unit and format that matters.

        Restores torch's random state afterwards. If ``on_unit`` or the model raises an exception,
        all hooks are removed and this call is dropped; earlier calls are kept. With a ``record``,
        its finished units are on disk, and the next probe with that record begins after them.

        Args:
            root: the module tree with the layers, under their names in the source.
            run: computes the result again from the same inputs, in the form of ``reference``.
            reference: the model's own output or sampled latent, any shape.
            sigma: the noise level of the call, or `SAMPLED`.
            on_unit: called before each run with the number of runs done, the number of all runs,
                and the run.
            record: where to save each unit. A sampling whose record has the key of an earlier one
                replaces that one in the result.
            is_enough: asked after each run; True ends the probe with what is known.

        Raises:
            CalibrationError: the model has active dropout, or has none of the probed layers, or the
                record cannot be written.
        """
        require_no_dropout(root)
        modules = find_linears(root, self._names())
        with torch.no_grad():
            exact = reference.detach().float()
            begun = record.begin(exact) if record else {}
            shifts = {run: shift for run, shift in begun.items() if run in self._runs}
            norm = float(exact.norm()) ** 2
            while key := self._next(shifts, is_enough):
                if on_unit:
                    on_unit(len(shifts), self.runs, key)
                linears = self._linears[key[0]]
                present = {n: modules[n] for n in self._runs[key] if n in modules}
                with (
                    noted(modules) as reached,
                    replaced(present, linears),
                    same_random_state(reference.device),
                ):
                    shifted = run().detach().float()
                difference = float((shifted - exact).norm()) ** 2
                unreached = tuple(sorted(self._names() - reached))
                shifts[key] = UnitShift(difference, norm, unreached)
                if record:
                    record.add(key, shifts[key])
        found = self._completed(round(float(sigma), 6), shifts, norm)
        self._findings.add(found, record.key if record else None)

    def _next(
        self, shifts: Mapping[ProbeRun, UnitShift], is_enough: Callable[[], bool] | None
    ) -> ProbeRun | None:
        """Return the next run; None if all are known, or enough of them."""
        if shifts and is_enough and is_enough():
            return None
        in_turn = self._runs if self._stop_below is None else self._runs.keys() - self._order.runs
        for run in self._runs:
            if run in in_turn and run not in shifts:
                return run
        if self._stop_below is None:
            return None
        return self._order.next_run(self._squares(shifts), self._stop_below)

    def _squares(self, shifts: Mapping[ProbeRun, UnitShift]) -> dict[ProbeRun, float]:
        """Return the relative squares that `ProbeOrder` decides by; NaN if a layer did not run.

        Each run tells which layers run at all, also of units that were not yet probed.
        """
        silent = {name for shift in shifts.values() for name in shift.unreached}
        squares = {run: shift.square for run, shift in shifts.items()}
        squares |= {run: math.nan for run, names in self._runs.items() if silent & set(names)}
        return {run: square for run, square in squares.items() if run in self._order.runs}

    def _completed(
        self, sigma: float, shifts: Mapping[ProbeRun, UnitShift], norm: float
    ) -> ProbedResult:
        """Return what was found, with estimates of the other runs."""
        missing = [run for run in self._runs if run not in shifts]
        squares = self._order.completed(self._squares(shifts)) if missing else {}
        estimated = {
            run: UnitShift(squares[run] * norm, norm)
            for run in missing
            if math.isfinite(squares.get(run, math.nan))
        }
        both = {**shifts, **estimated}
        in_order = {run: both[run] for run in self._runs if run in both}
        return ProbedResult(sigma, in_order, frozenset(estimated))

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
                self._findings.add_whole(formats, shift, record.key if record else None)

    def result(self) -> Sensitivity:
        """Return the sensitivity with the shifts of the probed formats, and of whole mixes.

        The shift stays unknown for layers that a probed call did not run, and if the output was not
        finite. Raises `CalibrationError` if no call was probed.
        """
        return self._findings.sensitivity()

    def _names(self) -> set[str]:
        return {name for linears in self._linears.values() for name in linears}


def _encoded(
    encode: LayerEncoder,
    found: Mapping[str, Mapping[str, Layer]],
    statistics: CalibrationStatistics | None,
    input_scale: InputScalePolicy,
    on_progress: OnProgress | None,
) -> dict[str, dict[str, QuantizedLinear]]:
    """Return the layers of each format as they are stored, without those with NaN."""
    counter, inputs = EncodingProgress(found, on_progress), ObservedInputs(statistics)
    linears = {}
    for name, layers in found.items():
        decisions = decide_scales(input_scale, statistics, layers)
        fmt = quantized_format(name)
        linears[name] = dict(encoded_layers(encode, fmt, layers, decisions, inputs, counter))
    return linears


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
