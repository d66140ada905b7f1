"""Make single layers of a live model compute as if quantized, with forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..calibration.input_scale import ScaleDecision
from ..conversion.encode_weight import encode_weight, scaled_input_scale
from ..conversion.layer import input_scale_of
from ..conversion.observed_input import ObservedInput, ObservedInputs
from ..errors import FormatError
from ..formats import WeightFormat
from ..formats.nvfp4 import PRE_QUANT_SCALE
from ..hardware.emulation import InputRounding, is_rounded_natively
from ..planning.inventory import Layer
from ..progress import OnProgress, numbered
from ..sources.base import TensorSource


@dataclass(frozen=True)
class QuantizedLinear:
    """One Linear layer as stored, and how its native product rounds the input."""

    rounding: InputRounding
    tensors: Mapping[str, Tensor]
    shape: tuple[int, ...]
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out] for ``x`` [..., in], in its dtype and on its device."""
        stored = {name: tensor.to(x.device) for name, tensor in self.tensors.items()}
        weight = self.rounding.format.decode(stored, self.shape).to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x)
        return nn.functional.linear(self.rounding.apply(x), weight, bias)


@dataclass(frozen=True)
class LayerEncoder:
    """Read a layer and encode it on a device. The result is on the CPU."""

    source: TensorSource
    rounding: str
    device: torch.device | str

    def __call__(
        self,
        layer: Layer,
        fmt: WeightFormat,
        input_scale: float | None,
        observed: ObservedInput | None,
    ) -> QuantizedLinear | None:
        """Return the layer; None if its weight has NaN, so that its shift stays unknown."""
        name = layer.tensor.name
        tensors = self.source.stored_tensors(name, fmt)
        if tensors is None:
            weight = self.source.load(name).to(self.device)
            try:
                chosen = encode_weight(
                    weight, fmt, self.rounding, observed, input_scale, measure_outputs=False
                )
            except FormatError:
                return None
            tensors = chosen.encoded.tensors
            input_scale = scaled_input_scale(input_scale, chosen, observed)
        bias = self.source.load(layer.companions[0].name) if layer.companions else None
        return QuantizedLinear(
            rounding=InputRounding(fmt, input_scale, _factors(tensors)),
            tensors={suffix: tensor.cpu() for suffix, tensor in tensors.items()},
            shape=layer.shape,
            # A source may return tensors that it owns.
            bias=None if bias is None else bias.clone(),
        )


def _factors(tensors: Mapping[str, Tensor]) -> Tensor | None:
    factors = tensors.get(PRE_QUANT_SCALE)
    return None if factors is None else factors.cpu()


class EncodingProgress:
    """Progress of encoding, counted in bytes of the layers over all formats."""

    def __init__(
        self, found: Mapping[str, Mapping[str, Layer]], on_progress: OnProgress | None
    ) -> None:
        self._total = sum(la.tensor.nbytes for layers in found.values() for la in layers.values())
        self._count = sum(map(len, found.values()))
        self._done = self._number = 0
        self._on_progress = on_progress

    def add(self, layer: Layer) -> None:
        """Report one more layer."""
        self._done += layer.tensor.nbytes
        self._number += 1
        if self._on_progress:
            text = numbered("layer", self._number, self._count, layer.name)
            self._on_progress(self._done, self._total, text)


def encoded_layers(
    encode: LayerEncoder,
    fmt: WeightFormat,
    layers: Mapping[str, Layer],
    decisions: Mapping[str, ScaleDecision],
    inputs: ObservedInputs,
    counter: EncodingProgress,
) -> Iterator[tuple[str, QuantizedLinear]]:
    """Yield the layers encoded in one format, without those that have NaN in their weight."""
    for name in inputs.together(layers):
        scale = input_scale_of(fmt, decisions[name])
        linear = encode(layers[name], fmt, scale, inputs.of(name))
        if linear is not None:
            yield name, linear
        counter.add(layers[name])


@contextmanager
def replaced(
    modules: Mapping[str, nn.Module], linears: Mapping[str, QuantizedLinear]
) -> Iterator[set[str]]:
    """Quantize these modules for the duration of the block; yield the names of those that ran."""
    reached: set[str] = set()
    handles = []
    try:
        for name, module in modules.items():
            hook = _hook(linears[name], name, reached)
            handles.append(module.register_forward_hook(hook, with_kwargs=True))
        yield reached
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def noted(modules: Mapping[str, nn.Module]) -> Iterator[set[str]]:
    """Yield the names of the modules that run within the block, with an input to round."""
    reached: set[str] = set()
    handles = []

    def note(name: str) -> Callable[..., None]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if is_rounded_natively(args[0] if args else kwargs.get("input")):
                reached.add(name)

        return before

    try:
        for name, module in modules.items():
            handles.append(module.register_forward_pre_hook(note(name), with_kwargs=True))
        yield reached
    finally:
        for handle in handles:
            handle.remove()


def _hook(linear: QuantizedLinear, name: str, reached: set[str]) -> Callable[..., Any]:
    def replace_output(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        x = args[0] if args else kwargs.get("input")
        if not is_rounded_natively(x):
            return None
        reached.add(name)
        return linear.forward(x).to(output.dtype)

    return replace_output
