"""Probe how far a result moves if only one unit is quantized: an input, a layer, or a block.

The result is that of a model call or, better, of a whole sampling. The probe computes it again once
per unit and format, with forward hooks that replace the outputs of the unit's layers by those of
quantized layers. It never changes the weights of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..calibration.input_scale import DEFAULT_POLICY, InputScalePolicy, ScaleDecision, decide_scales
from ..calibration.observed_layers import find_linears
from ..calibration.statistics import CalibrationStatistics
from ..conversion.layer import input_scale_of
from ..conversion.observed_input import ObservedInputs
from ..errors import CalibrationError
from ..formats import WeightFormat
from ..planning.inventory import Layer
from ..progress import OnProgress
from ..sources.base import TensorSource
from .artefact import Sensitivity
from .measure import candidate_layers, quantized_format
from .probed_layers import LayerEncoder, QuantizedLinear, replaced

ProbeUnit = Literal["input", "layer", "block"]

#: The sigma of the result of a whole sampling, which ends there.
SAMPLED = 0.0
#: Format and unit.
_Run = tuple[str, str]


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
        fingerprint = source.fingerprint()
        sensitivity.require_model(fingerprint)
        if statistics is not None:
            statistics.require_model(fingerprint)
        self._sensitivity = sensitivity
        encode = LayerEncoder(source, sensitivity.rounding, device)
        found = _layers_by_format(source, sensitivity, formats)
        counter = _Counter(found, on_progress)
        self._linears: dict[str, dict[str, QuantizedLinear]] = {}
        self._units: dict[str, dict[str, tuple[str, ...]]] = {}
        inputs = ObservedInputs(statistics)
        for format_name, layers in found.items():
            decisions = decide_scales(input_scale, statistics, layers)
            fmt = quantized_format(format_name)
            linears = dict(_encoded(encode, fmt, layers, decisions, inputs, counter))
            self._linears[format_name] = linears
            encoded = [layer for name, layer in layers.items() if name in linears]
            self._units[format_name] = _units(encoded, unit, sensitivity)
        self._squares: dict[float, dict[_Run, _Squares]] = {}
        self._unreached: set[str] = set()
        self._calls = 0

    @property
    def units(self) -> Mapping[str, tuple[str, ...]]:
        """Layers by unit, over all formats."""
        return {unit: names for units in self._units.values() for unit, names in units.items()}

    @property
    def runs(self) -> int:
        """How often each probed result is computed again: once per unit and format."""
        return sum(map(len, self._units.values()))

    @property
    def calls(self) -> int:
        """Number of results probed so far: model calls, or samplings."""
        return self._calls

    @property
    def unreached(self) -> tuple[str, ...]:
        """Layers that a probed result did not run, so their shifts are unknown."""
        return tuple(sorted(self._unreached))

    def probe(
        self,
        root: nn.Module,
        run: Callable[[], Tensor],
        reference: Tensor,
        sigma: float,
        on_unit: OnProgress | None = None,
    ) -> None:
        """Probe one model call or sampling: compute it again once per unit and format.

        Restores torch's random state afterwards. If ``on_unit`` or the model raises an exception,
        all hooks are removed and this call is dropped; earlier calls are kept.

        Args:
            root: the module tree with the layers, under their names in the source.
            run: computes the result again from the same inputs, in the form of ``reference``.
            reference: the model's own output or sampled latent, any shape.
            sigma: the noise level of the call, or `SAMPLED`.
            on_unit: called before each run with the number of runs done, the number of all runs,
                and the unit's name.

        Raises:
            CalibrationError: the model has active dropout, or has none of the probed layers.
        """
        _require_no_dropout(root)
        modules = find_linears(root, self._names())
        squares: dict[_Run, _Squares] = {}
        unreached: set[str] = set()
        with torch.no_grad():
            exact = reference.detach().float()
            norm = float(exact.norm()) ** 2
            for number, (key, names) in enumerate(self._runs()):
                if on_unit:
                    on_unit(number, self.runs, key[1])
                present = {name: modules[name] for name in names if name in modules}
                linears = self._linears[key[0]]
                with replaced(present, linears) as reached, _same_random_state(reference.device):
                    shifted = run().detach().float()
                difference = float((shifted - exact).norm()) ** 2
                squares[key] = _Squares(difference, norm)
                unreached |= set(names) - reached
        self._add(round(float(sigma), 6), squares, unreached)

    def result(self) -> Sensitivity:
        """Return the sensitivity with the shifts of the probed formats.

        The shift stays unknown for layers that a probed call did not run, and if the output was not
        finite. Raises `CalibrationError` if no call was probed.
        """
        if not self._calls:
            raise CalibrationError("no model call was probed: sample with the probed model first")
        result = self._sensitivity
        for format_name, units in self._units.items():
            shifts: dict[str, dict[float, float]] = {}
            for unit, names in units.items():
                reached = [name for name in names if name not in self._unreached]
                for name, share in self._shares(reached, format_name).items():
                    shifts[name] = {
                        sigma: math.sqrt(share * squares[format_name, unit].squared_shift())
                        for sigma, squares in sorted(self._squares.items())
                    }
            result = result.with_latents(format_name, shifts)
        return result

    def _runs(self) -> Iterator[tuple[_Run, tuple[str, ...]]]:
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

    def _add(self, sigma: float, squares: Mapping[_Run, _Squares], unreached: set[str]) -> None:
        totals = self._squares.setdefault(sigma, {})
        for key, added in squares.items():
            total = totals.setdefault(key, _Squares())
            total.difference += added.difference
            total.reference += added.reference
        self._unreached |= unreached
        self._calls += 1


class _Counter:
    """Progress of encoding, counted in bytes of the layers over all formats."""

    def __init__(
        self, found: Mapping[str, Mapping[str, Layer]], on_progress: OnProgress | None
    ) -> None:
        self._total = sum(la.tensor.nbytes for layers in found.values() for la in layers.values())
        self._done = 0
        self._on_progress = on_progress

    def add(self, layer: Layer) -> None:
        """Report one more layer."""
        self._done += layer.tensor.nbytes
        if self._on_progress:
            self._on_progress(self._done, self._total, layer.name)


def _encoded(
    encode: LayerEncoder,
    fmt: WeightFormat,
    layers: Mapping[str, Layer],
    decisions: Mapping[str, ScaleDecision],
    inputs: ObservedInputs,
    counter: _Counter,
) -> Iterator[tuple[str, QuantizedLinear]]:
    """Yield the layers encoded in one format, without those that have NaN in their weight."""
    for name in inputs.together(layers):
        scale = input_scale_of(fmt, decisions[name])
        linear = encode(layers[name], fmt, scale, inputs.of(name))
        if linear is not None:
            yield name, linear
        counter.add(layers[name])


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


def _require_no_dropout(root: nn.Module) -> None:
    for name, module in root.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p:
            raise CalibrationError(
                f"{name} drops values at random, which would look like sensitivity; put the model "
                "into evaluation mode (model.eval())"
            )


@contextmanager
def _same_random_state(device: torch.device) -> Iterator[None]:
    """Restore torch's random state on the CPU and on a device when the block ends."""
    is_gpu = device.type in ("cuda", "xpu")
    devices = [device.index] if is_gpu else []
    with torch.random.fork_rng(devices=devices, device_type=device.type if is_gpu else "cuda"):
        yield
