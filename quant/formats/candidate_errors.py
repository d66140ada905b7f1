"""The errors of all candidate scales of a block at once, looked up in tables.

The error of one value ``x``, in units of the max rule's scale, depends on ``x`` and on the ratio of
the candidate to that scale. E4M3 codes that are a fixed number of steps apart have a ratio that
depends only on the three mantissa bits, so eight tables over ``x`` serve all weights. They are cut
into bins. In a bin, a candidate stores one value ``v``, and with ``x = left + d`` the error is

    (x - v)^2 = (left - v)^2 + 2 (left - v) d + d^2

``d^2`` is the same for all candidates and decides nothing. The other two terms are sums over the
block of rows of a table, with weights ``1`` and ``d``: two calls of ``embedding_bag``, which adds
ten errors with one instruction. Trying the candidates one by one takes ten times as long.

A bin in which a candidate's rounding changes has an error there. The tables hold a bound of it, so
that the few blocks in which two candidates are too close to call are known and can be tried in
full.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from .e2m1 import E2M1_VALUES

#: E4M3 codes to try, relative to the code of the max rule. Codes further away were never chosen.
STEPS = range(-4, 6)

_MANTISSAS = 8
_BINS = 2048
# The max rule rounds its scale by at most a sixteenth, so no value exceeds 6 * 17 / 16 = 6.375.
_LARGEST = 6.4
_WIDTH = _LARGEST / _BINS
# All candidates of these codes are normal numbers, so their ratios follow from the mantissa.
_FIRST_CODE, _LAST_CODE = 0x08 - STEPS[0], 0x7E - STEPS[-1]
# Room for the rounding of float32 sums, relative to the error and per unit of weight.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5
_INDEX_BITS = 15
_LARGEST_BITS = 0x7F7FFFFF  # the largest float32


def choose_steps(
    magnitudes: torch.Tensor,
    start: torch.Tensor,
    scale: torch.Tensor,
    weights: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best step of each block, and where that is not certain.

    Args:
        magnitudes: absolute values, float32 ``[B, 16]``.
        start: the codes of the max rule, int32 ``[B]``.
        scale: their values times the tensor scale, float32 ``[B]``, in the unit of the magnitudes.
        weights: how much each value counts, float32 ``[B, 16]``, or None.

    Returns:
        int32 ``[B]``, the step from ``start``, and bool ``[B]``, true where another candidate may
        be as good.
    """
    first, slope = _tables()
    rows, distance = _look_up(magnitudes, start, scale)
    total = _sums(rows, first, weights)
    if weights is not None:
        distance.mul_(weights)
    total += _sums(rows, slope, distance)
    errors = total.t().contiguous()
    least, second = _two_least(errors[: len(STEPS)])
    step = (least & _INDEX_BITS).add_(STEPS[0])
    counted = magnitudes.shape[1] if weights is None else weights.sum(1)
    error = least.view(torch.float32)
    margin = errors[-1].add_(error, alpha=_RELATIVE).add_(counted * _ABSOLUTE)
    unsure = second.view(torch.float32) - error <= margin
    unsure |= (start < _FIRST_CODE) | (start > _LAST_CODE)
    return step, unsure


def _look_up(
    magnitudes: torch.Tensor, start: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the table row of each value, int32, and the distance from its bin's left edge."""
    width = scale.masked_fill(scale == 0, torch.inf).mul_(_WIDTH).unsqueeze(1)
    position = (magnitudes / width).clamp_(max=_BINS - 1)
    row = position.to(torch.int32)
    position.frac_()
    row.add_((start & (_MANTISSAS - 1)).mul_(_BINS).unsqueeze(1))
    return row, position


def _two_least(errors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and the second of errors ``[candidates, B]`` as bits with their index.

    The low bits of an error hold its index, so that one minimum finds both. Errors are not
    negative, so their bits, read as integers, have the same order.
    """
    index = torch.arange(len(errors), dtype=torch.int32).unsqueeze(1)
    bits = errors.clamp_(min=0.0).view(torch.int32).bitwise_and_(~_INDEX_BITS).bitwise_or_(index)
    least, second = bits[0].clone(), torch.full_like(bits[0], _LARGEST_BITS)
    for candidate in bits[1:]:
        torch.minimum(second, torch.maximum(least, candidate), out=second)
        torch.minimum(least, candidate, out=least)
    return least, second


def _sums(rows: torch.Tensor, table: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the weighted sum of some rows of a table for each block."""
    return torch.nn.functional.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)


@lru_cache(maxsize=1)
def _tables() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tables of errors and of slopes, float32 ``[8 * bins, candidates + 1]``.

    The last column of the first is the bound of what a comparison of two candidates may be wrong
    by. Positions are in units of the max rule's scale, distances in bins.
    """
    values = torch.tensor(E2M1_VALUES, dtype=torch.float64)
    limits = (values[1:] + values[:-1]) / 2
    left = torch.arange(_BINS, dtype=torch.float64) * _WIDTH
    centre = left + _WIDTH / 2
    codes = torch.arange(_MANTISSAS).unsqueeze(1) + 0x40 + torch.tensor(STEPS)
    numbers = codes.to(torch.uint8).view(torch.float8_e4m3fn).double()
    ratio = (numbers / numbers[:, -STEPS[0]].unsqueeze(1)).unsqueeze(1)  # [8, 1, candidates]
    stored = values[torch.bucketize(centre.view(1, -1, 1) / ratio, limits)] * ratio
    offset = left.view(1, -1, 1) - stored
    # where a limit lies in a bin, values beyond it are rounded to the neighbour instead
    from_limit = (limits * ratio.unsqueeze(-1) - centre.view(1, -1, 1, 1)).abs()
    gap = (values[1:] - values[:-1]) * ratio.unsqueeze(-1)
    wrong = (2 * gap * (_WIDTH / 2 - from_limit)).clamp_(min=0.0).amax(-1)
    bound = wrong.topk(2, dim=-1).values.sum(-1, keepdim=True)
    first = torch.cat([offset.square() + _WIDTH**2, bound], -1)
    slope = torch.cat([2 * _WIDTH * offset, torch.zeros_like(bound)], -1)
    return first.flatten(0, 1).float(), slope.flatten(0, 1).float()
