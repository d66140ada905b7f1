"""Search for the scale of a float8 weight that leaves the least squared error."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd

import torch

from .base import row_slices, safe_scale
from .e4m3 import E4M3_MAX, decode_e4m3
from .parallel import share_chunks

# Number of scales to try within a factor of two, and number of values that judge them.
_STEPS = 8
_SAMPLE = 1 << 18
_PIECE = 1 << 15
_LARGEST_FLOAT = torch.finfo(torch.float32).max


def searched_e4m3_scale(
    weight: torch.Tensor, amax: float, channel_weights: torch.Tensor | None
) -> float:
    """Return the best of eight scales from ``amax / 448`` up to almost twice that.

    No scale is smaller than the one of the max rule, which is the first candidate, so nothing is
    clipped. A factor of two is enough because the E4M3 grid repeats with every factor of two.
    Within it, the scale decides which values fall where the grid is coarse relative to them. The
    squared error is measured on a sample of values from all rows and columns.

    Args:
        weight: ``[out, in]``, any float dtype.
        amax: absolute maximum of the weight.
        channel_weights: how much the squared error of each channel counts, float32 ``[in]``.
    """
    smallest = safe_scale(amax, E4M3_MAX)
    if amax == 0:
        return smallest
    ratios = [2.0 ** (step / _STEPS) for step in range(_STEPS)]
    # the largest code must not overflow float32 when it is decoded
    ratios = [r for r in ratios if r == 1.0 or smallest * r * E4M3_MAX <= _LARGEST_FLOAT]
    stride = _sample_stride(*weight.shape)
    # Small pieces for the cores of a CPU. A GPU takes the whole sample at once.
    piece = _PIECE if weight.device.type == "cpu" else 2 * _SAMPLE
    pieces = row_slices(-(-weight.numel() // stride), 1, piece)
    if channel_weights is not None:
        channel_weights = channel_weights.to(weight.device)
    errors = weight.new_empty((len(pieces), len(ratios)), dtype=torch.float64)

    def loop(chunks: Iterable[slice]) -> None:
        for chunk in chunks:
            values, channels = _sample(weight, stride, chunk, channel_weights)
            found = [_error(values, channels, smallest * ratio) * ratio**2 for ratio in ratios]
            errors[chunk.start // piece] = torch.stack(found)

    share_chunks(loop, pieces, weight.device)
    return smallest * ratios[int(errors.sum(0).argmin())]


def _sample(
    weight: torch.Tensor, stride: int, piece: slice, channel_weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return every ``stride``-th value in ``piece``, and the channel weights of these values."""
    last = min(piece.stop * stride, weight.numel())
    index = torch.arange(piece.start * stride, last, stride, device=weight.device)
    columns = index % weight.shape[1]
    values = weight[index // weight.shape[1], columns].float()
    if channel_weights is None:
        return values, None
    return values, channel_weights[columns]


def _sample_stride(rows: int, columns: int) -> int:
    """Return a flat stride that takes about `_SAMPLE` values from all rows and columns.

    A sample of whole rows could miss a row of very large values, which causes most of the error.
    """
    stride = max(1, rows * columns // _SAMPLE)
    while gcd(stride, columns) > 1:
        stride += 1
    return stride


def _error(sample: torch.Tensor, channels: torch.Tensor | None, scale: float) -> torch.Tensor:
    """Return the squared error of values ``[n]``, weighted by ``channels``, in units of ``scale``.

    The result is 0-d float64, because the order of a sum differs on GPUs, and this must not change
    which scale is chosen.
    """
    stored = torch.full((), scale, dtype=torch.float32, device=sample.device)
    values = (sample * (1.0 / stored)).clamp_(-E4M3_MAX, E4M3_MAX)
    error = decode_e4m3(values.to(torch.float8_e4m3fn)).sub_(values).square_()
    if channels is not None:
        error.mul_(channels)
    return error.sum(dtype=torch.float64)
