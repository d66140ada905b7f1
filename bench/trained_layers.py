"""Linear layers in NVFP4 whose stored numbers are trained, for ``block_reconstruction.py``.

A layer computes with the values that its checkpoint would store: E2M1 codes, E4M3 block scales, a
tensor scale and a bias. Rounding passes gradients on as if it did nothing (the straight-through
estimator of Bengio et al. 2013, https://arxiv.org/abs/1308.3432).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from nvfp4_foundry.quant.formats.e2m1 import E2M1_MAX, round_to_e2m1, unpack
from nvfp4_foundry.quant.formats.e4m3 import E4M3_MAX, decode_e4m3
from nvfp4_foundry.quant.formats.nvfp4 import pack_blocks
from nvfp4_foundry.quant.formats.nvfp4_scales import BLOCK
from nvfp4_foundry.quant.formats.tiles import tile, untile
from nvfp4_foundry.quant.hardware.emulation import InputRounding
from torch import Tensor, nn

#: What can be trained, and the first step of Adam for it: biases by value, scales by their
#: logarithm, codes in the unit of E2M1.
RATES = {"biases": 5e-4, "tensor_scales": 1e-3, "block_scales": 3e-3, "codes": 1e-2}
#: The tensors of a layer in a checkpoint.
SUFFIXES = ("weight", "weight_scale", "weight_scale_2", "bias")


class TrainedLinear(nn.Module):
    """A Linear layer with trainable stored numbers that rounds its input like the native product.

    Its parameters have the names of `RATES`. Scales are trained as logarithms of their ratios to
    the first scales.
    """

    def __init__(
        self, shape: tuple[int, int], stored: Mapping[str, Tensor], rounding: InputRounding
    ) -> None:
        """Start from the tensors of a layer ``[out, in]`` in a checkpoint, by suffix."""
        super().__init__()
        rows, columns = shape
        blocks = untile(stored["weight_scale"], slice(0, rows), columns // BLOCK)
        self.rounding, self.rounds_input = rounding, True
        self.first_block_scales = decode_e4m3(blocks.view(torch.float8_e4m3fn))
        self.first_tensor_scale = stored["weight_scale_2"].float()
        self.biases = nn.Parameter(stored["bias"].float())
        self.tensor_scales = nn.Parameter(torch.zeros(()))
        self.block_scales = nn.Parameter(torch.zeros_like(self.first_block_scales))
        self.codes = nn.Parameter(unpack(stored["weight"])[:rows, :columns].clone())

    def scales(self) -> tuple[Tensor, Tensor]:
        """Return the block scales [out, in / 16], as E4M3 values, and the tensor scale."""
        wanted = (self.first_block_scales * self.block_scales.exp()).clamp(max=E4M3_MAX)
        return _rounded(wanted, _to_e4m3), self.first_tensor_scale * self.tensor_scales.exp()

    def weight(self) -> Tensor:
        """Return the weight [out, in] that a checkpoint would hold."""
        block_scales, tensor_scale = self.scales()
        codes = _rounded(self.codes.clamp(-E2M1_MAX, E2M1_MAX), _to_e2m1)
        total = (block_scales * tensor_scale).unsqueeze(-1)
        return (codes.unflatten(1, (-1, BLOCK)) * total).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` [..., in] to [..., out]."""
        if self.rounds_input:
            x = _rounded(x, self.rounding.apply)
        return nn.functional.linear(x, self.weight(), self.biases)

    @torch.no_grad()
    def stored(self, bias_dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the tensors of the layer as a checkpoint stores them, by suffix."""
        block_scales, tensor_scale = self.scales()
        block_codes = block_scales.to(torch.float8_e4m3fn)
        packed, padded = pack_blocks(self.weight(), block_codes, tensor_scale)
        bias = self.biases.to(bias_dtype)
        return dict(zip(SUFFIXES, (packed, tile(padded), tensor_scale.clone(), bias), strict=True))


@contextmanager
def plain_inputs(module: nn.Module) -> Iterator[None]:
    """Let the trained layers of a module leave their inputs as they are, as with W4A16."""
    layers = [layer for layer in module.modules() if isinstance(layer, TrainedLinear)]
    for layer in layers:
        layer.rounds_input = False
    try:
        yield
    finally:
        for layer in layers:
            layer.rounds_input = True


def _rounded(x: Tensor, rounding: Callable[[Tensor], Tensor]) -> Tensor:
    """Return ``x`` rounded. The gradient passes through."""
    with torch.no_grad():
        shift = rounding(x) - x
    return x + shift


def _to_e2m1(values: Tensor) -> Tensor:
    rounded = values.clone()
    round_to_e2m1(rounded, torch.empty_like(rounded))
    return rounded


def _to_e4m3(scales: Tensor) -> Tensor:
    return decode_e4m3(scales.to(torch.float8_e4m3fn))
