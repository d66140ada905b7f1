"""Run a quantized WAN checkpoint in plain torch, with the arithmetic of a chosen GPU generation.

ComfyUI and its kernels are not needed: weights are decoded once, and activations go through the
rounding that the native product applies to them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..quant.checkpoint.layout import StoredLayer, read_layout
from ..quant.errors import SourceError
from ..quant.formats import WeightFormat
from ..quant.sources import TensorSource, open_tensors
from .model import TinyWan


class QuantizedLinear(nn.Module):
    """A Linear whose input is rounded as the native product of its format rounds it.

    The product itself is taken in the dtype of the input: what remains beside the rounding is the
    order of summation.
    """

    def __init__(self, linear: nn.Linear, fmt: WeightFormat, input_scale: float | None) -> None:
        """Take over the decoded weight and the bias of ``linear``.

        Args:
            linear: holds the decoded weight.
            fmt: how its weight was stored.
            input_scale: the static scale of the checkpoint, None for the runtime's own.
        """
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.format = fmt
        self.input_scale = input_scale

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., in] to [..., out]."""
        rounded = self.format.emulate_activations(x.reshape(-1, x.shape[-1]), self.input_scale)
        return nn.functional.linear(rounded.to(x.dtype).reshape(x.shape), self.weight, self.bias)


def load_quantized(
    path: str | Path, *, round_activations: bool, dtype: torch.dtype = torch.float32
) -> TinyWan:
    """Read a checkpoint that the pipeline wrote from a WAN text-to-video model.

    Args:
        path: the safetensors file.
        round_activations: compute as a GPU that multiplies the stored formats natively does
            (Blackwell: W4A4 and float8). Otherwise only the weights are rounded (W4A16), as on
            hardware that decodes them first.
        dtype: compute dtype.

    Raises:
        SourceError: the file is missing, of another model, or holds a format not known here.
        CheckpointError: its markers are damaged.
    """
    with open_tensors(path) as source:
        layers = read_layout(source)
        weights = {name: tensor for la in layers.values() for name, tensor in _decoded(source, la)}
        scales = {name: _input_scale(source, layer) for name, layer in layers.items()}
    model = TinyWan.from_state_dict(weights, dtype)
    if round_activations:
        for name, layer in layers.items():
            if layer.format is not None:
                linear = model.get_submodule(name)
                assert isinstance(linear, nn.Linear)
                model.set_submodule(name, QuantizedLinear(linear, layer.format, scales[name]))
    return model


def _decoded(source: TensorSource, layer: StoredLayer) -> list[tuple[str, Tensor]]:
    """Return the layer's tensors as an unquantized file would hold them, by full name."""
    if layer.marker is None:
        return [(info.name, source.load(info.name)) for info in layer.tensors.values()]
    if layer.format is None:
        raise SourceError(f"{layer.name} is stored as {layer.format_name}, not known here")
    stored = {suffix: source.load(info.name) for suffix, info in layer.tensors.items()}
    decoded = [(f"{layer.name}.weight", layer.format.decode(stored, layer.shape()))]
    if "bias" in stored:
        decoded.append((f"{layer.name}.bias", stored["bias"]))
    return decoded


def _input_scale(source: TensorSource, layer: StoredLayer) -> float | None:
    info = layer.tensors.get("input_scale")
    return float(source.load(info.name)) if info else None
