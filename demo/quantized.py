"""Run a quantized WAN checkpoint in plain torch, with the arithmetic of a chosen GPU generation.

ComfyUI and its kernels are not needed: weights are decoded once, and activations go through the
rounding that the native product applies to them.
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
    """A Linear whose input is rounded as the native product of its format rounds it.

    The product itself is taken in the dtype of the input: what remains beside the rounding is the
    order of summation.
    """

    def __init__(self, linear: nn.Linear, rounding: InputRounding) -> None:
        """Take over the decoded weight and the bias of ``linear``."""
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
        weights = decoded_tensors(source)
        roundings = read_input_roundings(source) if round_activations else {}
    model = TinyWan.from_state_dict(weights, dtype)
    for name, rounding in roundings.items():
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        model.set_submodule(name, QuantizedLinear(linear, rounding))
    return model
