"""Search for the scales of integer formats.

A scale that clips the largest values slightly often fits the other values better. All values are
in units of the max rule's scale, so that nothing overflows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from .base import device_slices
from .integers import RowScales
from .parallel import share_chunks
from .rule import ScaleRule

# Scales to try for a row, as log2 of the ratio to the max rule's scale. For a Gaussian row of a few
# thousand values, the best ratio is about 0.7 with 15 codes, and almost 1 with 255 codes.
_FEW_CODES, _MANY_CODES = [-step / 12 for step in range(13)], [-step / 70 for step in range(16)]
_MANY = 16
# Scales to try for a tensor. One of its millions of values may be an extreme outlier, so the range
# is wide: first coarse steps, then fine steps around the best.
_COARSE_STEPS = [-step / 2 for step in range(13)]
_FINE_STEPS = [step / 8 for step in range(-3, 4)]


def row_scales_by(
    rule: ScaleRule, largest: float, group: int | None, device: torch.device
) -> RowScales:
    """Return a function that chooses one scale per row for codes from ``-largest`` to ``largest``.

    A rotated channel gets the mean weight of its group, because the rotation spreads every channel
    evenly over the group.

    Args:
        rule: decides whether to search, and with which channel weights.
        largest: the largest code.
        group: number of channels that were rotated together; None for no rotation.
        device: the device of the rows.
    """
    if not rule.searches:
        return lambda rows, amax: max_row_scales(amax, largest)
    weights = rule.channel_weights
    if weights is not None and group is not None:
        weights = weights.view(-1, group).mean(1).repeat_interleave(group)
    weights = None if weights is None else weights.to(device)
    return lambda rows, amax: search_row_scales(rows, amax, largest, weights)


def choose_tensor_scale(
    weight: torch.Tensor, amax: float, largest: float, rule: ScaleRule
) -> float:
    """Return the scale of a weight ``[out, in]`` for codes from ``-largest`` to ``largest``."""
    if not rule.searches:
        return float(max_row_scales(torch.tensor(amax), largest))
    weights = rule.channel_weights
    weights = None if weights is None else weights.to(weight.device)
    return search_tensor_scale(weight, amax, largest, weights)


def max_row_scales(amax: torch.Tensor, largest: float) -> torch.Tensor:
    """Return ``amax / largest``.

    Divides by a tensor, because torch on a GPU divides by a Python number by multiplying with its
    reciprocal.
    """
    return amax / amax.new_full((), largest)


def search_row_scales(
    rows: torch.Tensor, amax: torch.Tensor, largest: float, weights: torch.Tensor | None
) -> torch.Tensor:
    """Return the scale of each row with the least squared error, float32 ``[R]``.

    Args:
        rows: float32 ``[R, in]``.
        amax: absolute maxima of the rows, float32 ``[R]``.
        largest: the largest code.
        weights: how much the error of each channel counts, float32 ``[in]``; None: equally.
    """
    widest = max_row_scales(amax, largest)
    units = rows / widest.masked_fill(widest == 0, 1.0).unsqueeze(1)
    least = torch.full_like(amax, torch.inf)
    best = torch.ones_like(amax)
    for step in _MANY_CODES if largest > _MANY else _FEW_CODES:
        ratio = 2.0**step
        error = _squared_errors(units, ratio, largest, weights)
        better = error < least
        least = torch.where(better, error, least)
        best = best.masked_fill(better, ratio)
    return best.mul_(widest)


def search_tensor_scale(
    weight: torch.Tensor, amax: float, largest: float, weights: torch.Tensor | None
) -> float:
    """Return the scale of a weight ``[out, in]`` with the least squared error."""
    widest = float(max_row_scales(torch.tensor(amax), largest))
    if widest == 0:
        return widest
    best = 0.0
    for steps in (_COARSE_STEPS, _FINE_STEPS):
        tried = [min(0.0, best + step) for step in steps]
        best = tried[_best_ratio(weight, widest, tried, largest, weights)]
    return widest * 2.0**best


def _best_ratio(
    weight: torch.Tensor,
    widest: float,
    steps: Sequence[float],
    largest: float,
    weights: torch.Tensor | None,
) -> int:
    """Return the index of the step that leaves the least error over the whole weight."""
    errors: dict[int, torch.Tensor] = {}

    def loop(chunks: Iterable[slice]) -> None:
        for chunk in chunks:
            units = weight[chunk].float() / widest
            found = [_squared_errors(units, 2.0**step, largest, weights) for step in steps]
            # float64, because the order of a sum differs on GPUs and must not change the choice
            errors[chunk.start] = torch.stack(found).double().sum(1)

    share_chunks(loop, device_slices(weight), weight.device)
    return int(torch.stack([errors[start] for start in sorted(errors)]).sum(0).argmin())


def _squared_errors(
    units: torch.Tensor, ratio: float, largest: float, weights: torch.Tensor | None
) -> torch.Tensor:
    """Return the squared error ``[R]`` of each row with scale ``ratio``, weighted by channel."""
    error = (units * (1.0 / ratio)).round_().clamp_(-largest, largest).mul_(ratio)
    error.sub_(units).square_()
    return error.sum(1) if weights is None else error @ weights
