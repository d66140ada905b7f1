"""The values that a codebook with a scale per block can store, for error feedback."""

from __future__ import annotations

import torch

from .codebook import NearestLevel
from .integers import INT8_MAX
from .rule import RoundInto

# E4M3 codes to try around that of a block's largest value.
_STEPS = range(-5, 4)
_LARGEST_CODE = 0x7E  # 448; 0x7F is NaN
_CODES = 128
# Midpoints of integers are multiples of a half, so all values of a cell of half the width of an
# integer have the same nearest integer.
_PER_UNIT = 2
_HALF = _PER_UNIT * int(INT8_MAX)
_CELLS = 2 * _HALF


class CodebookGrid:
    """The `BlockGrid` of a rotated weight in units of its row scales.

    Args:
        levels: the integers that each code stands for with each E4M3 block scale, float32
            ``[128, 16]`` in increasing order.
        nearest: finds the nearest of these levels.
        block: channels per scale.
        group: channels that are rotated together.
    """

    def __init__(
        self, levels: torch.Tensor, nearest: NearestLevel, *, block: int, group: int
    ) -> None:
        self.block, self.group = block, group
        cells = torch.arange(_CELLS, dtype=torch.float32, device=levels.device)
        centres = ((cells + 0.5 - _HALF) / _PER_UNIT).expand(_CODES, -1)
        scales = torch.arange(_CODES, dtype=torch.int32, device=levels.device)
        self._integers = levels.gather(1, nearest(centres.contiguous(), scales).long()).view(-1)

    def candidates(self, block_amax: torch.Tensor) -> torch.Tensor:
        """Return nine codes around the scale that makes the largest value the largest level."""
        start = block_amax.clamp(max=448.0).to(torch.float8_e4m3fn).view(torch.uint8).int()
        codes = [(start + step).clamp_(0, _LARGEST_CODE) for step in _STEPS]
        return torch.stack(codes, 1).to(torch.uint8)

    def rounding(self, codes: torch.Tensor) -> RoundInto:
        """Return what rounds values to the integers that blocks with these scales can store."""
        first = codes.int().mul_(_CELLS).add_(_HALF)

        def round_into(values: torch.Tensor, out: torch.Tensor) -> None:
            cell = torch.mul(values, _PER_UNIT, out=out).floor_().clamp_(-_HALF, _HALF - 1)
            torch.index_select(self._integers, 0, cell.int().add_(first).view(-1), out=out.view(-1))

        return round_into
