"""Run a quantized WAN checkpoint in plain torch, with or without native products.

It needs neither ComfyUI nor its kernels. Weights are decoded once, and activations are rounded as
the native product rounds them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..quant.checkpoint.decoded import decoded_tensors
from ..quant.hardware.emulation import InputRounding, read_input_roundings
from ..quant.sources import open_tensors
from .model import TinyWan


class QuantizedLinear(nn.Module):
    """A Linear layer that rounds its input like the native product of its format.

    The product is computed in the dtype of the input, so only the order of summation differs from
    the native product.
    """

    def __init__(self, linear: nn.Linear, rounding: InputRounding) -> None:
        """Take the decoded weight and the bias from ``linear``."""
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.rounding = rounding

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., in] to [..., out]."""
        return nn.functional.linear(self.rounding.apply(x), self.weight, self.bias)


def load_quantized(
    path: str | Path, *, round_activations: bool, dtype: torch.dtype = torch.float32
) -> TinyWan:
    """Load a checkpoint that was quantized from a WAN text-to-video model.

    Args:
        path: the safetensors file.
        round_activations: whether to round activations, as on a GPU that multiplies the formats
            natively (Blackwell: W4A4 and float8). Otherwise only the weights are rounded (W4A16),
            as on GPUs that decode them first.
        dtype: compute dtype.

    Raises:
        SourceError: the file is missing, is another model, or holds an unknown format.
        CheckpointError: its markers are damaged.
    """
    with open_tensors(path) as source:
        weights = decoded_tensors(source)
        roundings = read_input_roundings(source) if round_activations else {}
    model = TinyWan.from_state_dict(weights, dtype)
    for name, rounding in roundings.items():
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(name, QuantizedLinear(linear, rounding))
    return model
