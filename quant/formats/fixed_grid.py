"""Error feedback for formats whose scales are chosen before the values are rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import gcd

import torch

from .base import row_slices
from .rule import ErrorFeedback, RoundInto

# NVFP4's, so that layers of one input in NVFP4 and in another format share one factor.
_BLOCK = 16
# Values of a weight in float32 that are rounded at once.
_VALUES = 1 << 25


class FixedGrid:
    """The `BlockGrid` of a weight in units of its scales. The unit is the only candidate.

    Args:
        round_into: rounds values in units of their scales to those that the format can store.
        columns: input channels, of any number.
        group: channels that are rotated together; 1: not rotated.
    """

    def __init__(self, round_into: RoundInto, columns: int, *, group: int = 1) -> None:
        self.block, self.group = gcd(columns, _BLOCK), group
        self._round_into = round_into

    def candidates(self, block_amax: torch.Tensor) -> torch.Tensor:
        """Return code 0 for every block, uint8 ``[B, 1]``. No format stores it."""
        return torch.zeros((len(block_amax), 1), dtype=torch.uint8, device=block_amax.device)

    def rounding(self, codes: torch.Tensor) -> RoundInto:
        """Return what rounds values to those that the format can store."""
        return self._round_into


def rounded_parts(
    feedback: ErrorFeedback,
    round_into: RoundInto,
    units: Callable[[slice], torch.Tensor],
    shape: tuple[int, int],
    *,
    group: int = 1,
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Round a weight of this shape with error feedback, in bounded parts.

    Args:
        feedback: rounds each part.
        round_into: see `FixedGrid`.
        units: returns some rows in units of their scales, float32 ``[R, in]``, rotated if
            ``group`` is not 1.
        shape: ``(out, in)``.
        group: see `FixedGrid`.

    Yields:
        the rows of a part, their values and the rounded values, both in units of the scales.
    """
    rows, columns = shape
    grid = FixedGrid(round_into, columns, group=group)
    for part in row_slices(rows, columns, _VALUES):
        values = units(part)
        yield part, values, feedback.round_blocks(values, grid, rounded_input=False)[0]
