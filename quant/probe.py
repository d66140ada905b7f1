"""How far a model's output moves when only one layer, or one block, is quantized.

The model is run again at a call of a real sampling, once per unit, with forward hooks that put
the quantized product in place of the layers' own. Weights of the model are never touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .calibration.input_scale import DEFAULT_HEADROOM, decide_scales, parse_policy
from .calibration.observed_layers import find_linears
from .calibration.sensitivity import Sensitivity
from .calibration.statistics import CalibrationStatistics
from .choose_encoding import choose_encoding
from .emulation import InputRounding, is_rounded_natively
from .encode import input_scale_of
from .errors import CalibrationError, FormatError
from .formats import WeightFormat
from .measure_sensitivity import OnProgress, candidate_layers, quantized_format
from .observed_input import ObservedInput, ObservedInputs
from .planning.inventory import Layer
from .sources.base import TensorSource

ProbeUnit = Literal["input", "layer", "block"]

#: Called before each run of the model with runs done, runs in all, and the unit. May raise to stop.
OnUnit = Callable[[int, int, str], None]


@dataclass(frozen=True)
class _QuantizedLinear:
    """One layer as it is stored, and how its native product rounds the input."""

    rounding: InputRounding
    tensors: Mapping[str, Tensor]
    shape: tuple[int, ...]
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., in] to [..., out], in its dtype and on its device."""
        stored = {name: tensor.to(x.device) for name, tensor in self.tensors.items()}
        weight = self.rounding.format.decode(stored, self.shape).to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x)
        return nn.functional.linear(self.rounding.apply(x), weight, bias)


@dataclass
class _Squares:
    """Squared norms, summed over model calls at one sigma."""

    difference: float = 0.0
    reference: float = 0.0

    def squared_shift(self) -> float:
        """Return the relative squared shift; NaN for a reference of zero or without end."""
        if not 0 < self.reference < math.inf:
            return math.nan
        return self.difference / self.reference


class LatentProbe:
    """Gathers shifts of a model's output over any number of model calls; not thread-safe.

    Holds every probed weight packed, 4.5 bits for NVFP4, in CPU memory.
    """

    def __init__(
        self,
        source: TensorSource,
        sensitivity: Sensitivity,
        *,
        format_name: str = "nvfp4",
        unit: ProbeUnit = "input",
        statistics: CalibrationStatistics | None = None,
        input_scale: str = "amax",
        headroom: float = DEFAULT_HEADROOM,
        device: torch.device | str = "cpu",
        on_progress: OnProgress | None = None,
    ):
        """Encode the layers, one at a time.

        Args:
            source: the model, unquantized, unprefixed names.
            sensitivity: of this model, with output errors in the format; `result` adds to it.
            format_name: the format to probe. `Sensitivity.cost` scales the others by it.
            unit: quantize together the layers that share an input (q, k and v), each layer alone,
                or a block. The shift of a unit is shared among its layers. Layers of one input
                round the same values, so their errors do not add up as independent ones.
            statistics: of this model, for static input scales and rounding.
            input_scale, headroom: policy of the static activation scales, as in a recipe.
            device: where weights are encoded.
            on_progress: called after each layer.

        Raises:
            CalibrationError: sensitivity or statistics are of another model, or no layer of the
                sensitivity has the format.
            FormatError: no such format.
        """
        fingerprint = source.fingerprint()
        sensitivity.require_model(fingerprint)
        if statistics is not None:
            statistics.require_model(fingerprint, "the calibration statistics")
        self._sensitivity = sensitivity
        self._format = quantized_format(format_name)
        measured = [n for n in sensitivity.layers if format_name in sensitivity.candidates(n)]
        if not measured:
            raise CalibrationError(
                f"the sensitivity was not measured for {format_name}; measure it with that format"
            )
        found = candidate_layers(source, (self._format,), measured)
        layers = [layer for layer, _ in found.values()]
        decisions = decide_scales(parse_policy(input_scale, headroom), statistics, found)
        scales = {name: input_scale_of(self._format, decisions[name]) for name in found}
        encode = _Encoder(source, self._format, sensitivity.rounding, device)
        inputs = ObservedInputs(statistics)
        self._linears: dict[str, _QuantizedLinear] = {}
        done, total = 0, sum(layer.tensor.nbytes for layer in layers)
        for name in inputs.together(found):
            layer, _ = found[name]
            linear = encode(layer, scales[name], inputs.of(name))
            if linear is not None:
                self._linears[name] = linear
            done += layer.tensor.nbytes
            if on_progress:
                on_progress(done, total, name)
        encoded = [layer for layer in layers if layer.name in self._linears]
        self._units = _units(encoded, unit, sensitivity)
        self._squares: dict[float, dict[str, _Squares]] = {}
        self._unreached: set[str] = set()
        self._calls = 0

    @property
    def units(self) -> Mapping[str, tuple[str, ...]]:
        """Layers by unit; each unit is one more run of the model per probed call."""
        return self._units

    @property
    def calls(self) -> int:
        """Model calls probed so far."""
        return self._calls

    @property
    def unreached(self) -> tuple[str, ...]:
        """Layers that a probed call did not run, so that nothing is known of them."""
        return tuple(sorted(self._unreached))

    def probe(
        self,
        root: nn.Module,
        run: Callable[[], Tensor],
        reference: Tensor,
        sigma: float,
        on_unit: OnUnit | None = None,
    ) -> None:
        """Probe one model call: run the model once per unit.

        Torch's random state is afterwards what it was before. An exception, of ``on_unit`` or the
        model, leaves no hook behind and drops this call; calls probed before are kept.

        Args:
            root: the module tree that holds the layers by their names in the source.
            run: runs the model once more on the same inputs, returning what ``reference`` is.
            reference: the model's own output, any shape.
            sigma: the noise level of the call.
            on_unit: called before each run.

        Raises:
            CalibrationError: the model has active dropout, or lacks every probed layer.
        """
        _require_no_dropout(root)
        modules = find_linears(root, self._linears)
        squares: dict[str, _Squares] = {}
        unreached: set[str] = set()
        with torch.no_grad():
            exact = reference.detach().float()
            norm = float(exact.norm()) ** 2
            for number, (unit, names) in enumerate(self._units.items()):
                if on_unit:
                    on_unit(number, len(self._units), unit)
                present = {name: modules[name] for name in names if name in modules}
                with self._replaced(present) as reached, _same_random_state(reference.device):
                    shifted = run().detach().float()
                difference = float((shifted - exact).norm()) ** 2
                squares[unit] = _Squares(difference, norm)
                unreached |= set(names) - reached
        self._add(round(float(sigma), 6), squares, unreached)

    def result(self) -> Sensitivity:
        """Return the sensitivity with the shifts of the probed format filled in.

        Unknown stays what a probed call did not run, or where the output was not finite. Raises
        `CalibrationError` when no call was probed.
        """
        if not self._calls:
            raise CalibrationError("no model call was probed: sample with the probed model first")
        shifts: dict[str, dict[float, float]] = {}
        for unit, names in self._units.items():
            reached = [name for name in names if name not in self._unreached]
            for name, share in self._shares(reached).items():
                shifts[name] = {
                    sigma: math.sqrt(share * by_unit[unit].squared_shift())
                    for sigma, by_unit in sorted(self._squares.items())
                }
        return self._sensitivity.with_latents(self._format.name, shifts)

    def _shares(self, names: Collection[str]) -> dict[str, float]:
        """Return each layer's share of its unit's squared shift: they add up to one.

        In proportion to the squared output errors; an unknown one counts as much as the mean of
        the known ones.
        """
        errors = {n: self._sensitivity.candidates(n)[self._format.name].w4a4 for n in names}
        known = [error**2 for error in errors.values() if error is not None]
        mean = sum(known) / len(known) if any(known) else 1.0
        weights = {
            name: error**2 if error is not None and any(known) else mean
            for name, error in errors.items()
        }
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    @contextmanager
    def _replaced(self, modules: Mapping[str, nn.Module]) -> Iterator[set[str]]:
        """Quantize these layers while the block lasts; yields the names of those that ran."""
        reached: set[str] = set()
        handles = []
        try:
            for name, module in modules.items():
                hook = _hook(self._linears[name], name, reached)
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
            yield reached
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, sigma: float, squares: Mapping[str, _Squares], unreached: set[str]) -> None:
        totals = self._squares.setdefault(sigma, {})
        for unit, added in squares.items():
            total = totals.setdefault(unit, _Squares())
            total.difference += added.difference
            total.reference += added.reference
        self._unreached |= unreached
        self._calls += 1


@dataclass(frozen=True)
class _Encoder:
    """Reads a layer and encodes it on a device; what is kept is on CPU."""

    source: TensorSource
    format: WeightFormat
    rounding: str
    device: torch.device | str

    def __call__(
        self, layer: Layer, input_scale: float | None, observed: ObservedInput | None
    ) -> _QuantizedLinear | None:
        """Return the layer, None if its weight holds NaN: its shift then stays unknown."""
        name = layer.tensor.name
        tensors = self.source.stored_tensors(name, self.format)
        if tensors is None:
            weight = self.source.load(name).to(self.device)
            try:
                chosen = choose_encoding(
                    weight, self.format, self.rounding, observed, input_scale, measure_outputs=False
                )
            except FormatError:
                return None
            tensors = chosen.encoded.tensors
        bias = self.source.load(layer.companions[0].name) if layer.companions else None
        return _QuantizedLinear(
            rounding=InputRounding(self.format, input_scale),
            tensors={suffix: tensor.cpu() for suffix, tensor in tensors.items()},
            shape=layer.shape,
            # clone: a source may hand out tensors it owns
            bias=None if bias is None else bias.clone(),
        )


def _units(
    layers: Collection[Layer], unit: ProbeUnit, sensitivity: Sensitivity
) -> dict[str, tuple[str, ...]]:
    """Group layers by input or by block; what has none, or any with ``layer``, is a unit itself."""
    units: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        name = layer.name
        if unit == "block" and layer.block:
            name = f"{layer.block.container}.{layer.block.index}"
        elif unit == "input":
            name = sensitivity.layers[name].input_id or name
        units[name] = (*units.get(name, ()), layer.name)
    return units


def _hook(linear: _QuantizedLinear, name: str, reached: set[str]) -> Callable[..., Any]:
    def replace_output(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        x = args[0] if args else kwargs.get("input")
        if not is_rounded_natively(x):
            return None
        reached.add(name)
        return linear.forward(x).to(output.dtype)

    return replace_output


def _require_no_dropout(root: nn.Module) -> None:
    for name, module in root.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p:
            raise CalibrationError(
                f"{name} drops values at random, which would pass for sensitivity: put the model "
                "into evaluation mode (model.eval())"
            )


@contextmanager
def _same_random_state(device: torch.device) -> Iterator[None]:
    """Restore torch's random state of the CPU and of a device when the block ends."""
    is_gpu = device.type in ("cuda", "xpu")
    devices = [device.index] if is_gpu else []
    with torch.random.fork_rng(devices=devices, device_type=device.type if is_gpu else "cuda"):
        yield
