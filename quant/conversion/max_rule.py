"""Estimate what the plain max rule would lose on a layer, without a second conversion.

A sample of the weight's rows is encoded by the max rule, under the tensor scale of the whole
weight, and compared with the chosen encoding of the same rows. The error of the whole layer is the
chosen encoding's, times the ratio of the two. The ratio varies far less between rows than errors
do, so a few rows are enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..formats import EncodedWeight, WeightFormat
from ..formats.base import tensor_amax
from ..rounding import MaxRule
from .output_trial import OutputTrial

#: Rows to encode, in bands spread evenly over the weight: few enough to take no time.
SAMPLED_ROWS = 128
_BANDS = 8


@dataclass(frozen=True)
class MaxRuleEstimate:
    """Errors of a layer by the plain max rule, and norms to add up the errors of layers.

    ``weight`` and ``w4a16`` are relative errors of the weight and of its output with 16-bit
    inputs; None: not known. ``weight_norm`` is the Frobenius norm of the weight, estimated from
    the sampled rows.
    """

    weight: float | None
    w4a16: float | None
    weight_norm: float


def estimate_max_rule(
    weight: torch.Tensor,
    fmt: WeightFormat,
    encoded: EncodedWeight,
    rounding: str,
    trial: OutputTrial | None = None,
    output_error: float | None = None,
    bias_shift: torch.Tensor | None = None,
) -> MaxRuleEstimate:
    """Return what the max rule would lose on a weight ``[out, in]``.

    Args:
        weight: the exact weight, any float dtype.
        fmt: its format.
        encoded: the chosen encoding, with its error.
        rounding: the rounding of the chosen encoding.
        trial: sampled inputs, if there are any.
        output_error: the W4A16 error of the chosen encoding.
        bias_shift: the correction of the bias that belongs to the chosen encoding, or None.
    """
    bands = _bands(weight.shape[0])
    rows = torch.cat([weight[band] for band in bands])
    exact = rows.float()
    norm = float(exact.norm()) * (weight.shape[0] / max(1, len(rows))) ** 0.5
    if rounding == "max" or not len(rows):
        return MaxRuleEstimate(encoded.relative_error, output_error, norm)
    shape = (weight.shape[0], weight.shape[1])
    chosen = torch.cat([fmt.decode(encoded.tensors, shape, band) for band in bands])
    plain = _by_max_rule(rows, tensor_amax(weight), fmt)
    by_weight = _ratio(plain - exact, chosen - exact)
    estimated = None
    if trial is not None and trial.is_possible and output_error is not None:
        shift = 0.0
        if bias_shift is not None:
            shift = torch.cat([bias_shift[band] for band in bands])
        inputs = trial.inputs
        estimated = _times(
            output_error,
            _ratio(inputs @ (plain - exact).T, inputs @ (chosen - exact).T + shift),
        )
    return MaxRuleEstimate(_times(encoded.relative_error, by_weight), estimated, norm)


def _by_max_rule(rows: torch.Tensor, amax: torch.Tensor, fmt: WeightFormat) -> torch.Tensor:
    """Return rows rounded by the max rule, in a weight with this largest absolute value."""
    # One more row holds the largest value of the weight, so that scales per tensor are the same.
    largest = torch.zeros_like(rows[:1])
    largest[0, 0] = amax.to(rows.dtype)
    whole = torch.cat([rows, largest])
    tensors = fmt.encode(whole, MaxRule()).tensors
    return fmt.decode(tensors, (whole.shape[0], whole.shape[1]))[: len(rows)]


def _bands(rows: int) -> list[slice]:
    """Return slices of `SAMPLED_ROWS` rows in all, spread evenly; all rows if there are fewer."""
    if rows <= SAMPLED_ROWS:
        return [slice(0, rows)]
    size = SAMPLED_ROWS // _BANDS
    return [
        slice(start, start + size)
        for start in (number * (rows - size) // (_BANDS - 1) for number in range(_BANDS))
    ]


def _ratio(plain: torch.Tensor, chosen: torch.Tensor) -> float | None:
    """Return the ratio of the norms of two errors; None if the second one is zero."""
    reference = float(chosen.norm())
    return float(plain.norm()) / reference if reference > 0 else None


def _times(error: float | None, ratio: float | None) -> float | None:
    return None if error is None or ratio is None else error * ratio
