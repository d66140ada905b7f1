"""Estimate what the plain max rule would lose on a layer, without a second conversion.

A sample of the weight's rows, with the one that decides the scale of the whole weight, is encoded
by the max rule and compared with the chosen encoding of the same rows. The error of the whole layer
is the chosen encoding's, times the ratio of the two. The ratio varies far less between rows than
errors do, so a few rows are enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..formats import EncodedWeight, WeightFormat
from ..rounding import MaxRule
from .output_trial import OutputTrial, spread_bands

#: Rows to encode, in bands spread evenly over the weight: few enough to take no time.
SAMPLED_ROWS = 64
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
    sample = _Sample.of(weight)
    exact = sample.rows.float()
    if rounding == "max" or not len(exact):
        (squared_norm,) = sample.totals(exact)
        return MaxRuleEstimate(encoded.relative_error, output_error, squared_norm**0.5)
    shape = (weight.shape[0], weight.shape[1])
    chosen = torch.cat([fmt.decode(encoded.tensors, shape, band) for band in sample.bands])
    plain = fmt.decode(fmt.encode(sample.rows, MaxRule()).tensors, (len(exact), shape[1]))
    compared = [exact, plain - exact, chosen - exact]
    if trial is not None and trial.is_possible:
        # one row per output channel
        of_plain, of_chosen = ((rows - exact) @ trial.inputs.T for rows in (plain, chosen))
        if bias_shift is not None:
            of_chosen += torch.cat([bias_shift[band] for band in sample.bands]).unsqueeze(1)
        compared += [of_plain, of_chosen]
    squared_norm, *squares = sample.totals(*compared)
    by_weight = _ratio(*squares[:2])
    by_output = _ratio(*squares[2:]) if squares[2:] else None
    return MaxRuleEstimate(
        _times(encoded.relative_error, by_weight),
        _times(output_error, by_output),
        squared_norm**0.5,
    )


@dataclass(frozen=True)
class _Sample:
    """Some rows of a weight: bands spread evenly, and the row of the largest value.

    That row decides the scales of the whole weight, and may hold most of the error of a rounding
    that clips it. ``scale`` is how many rows of the weight each row of the bands stands for.
    """

    bands: tuple[slice, ...]
    rows: torch.Tensor
    scale: float

    @classmethod
    def of(cls, weight: torch.Tensor) -> _Sample:
        count = weight.shape[0]
        if count <= SAMPLED_ROWS:
            return cls((slice(0, count),), weight, 1.0)
        largest = int(torch.maximum(weight.amax(1), -weight.amin(1)).argmax())
        bands = (*spread_bands(count, SAMPLED_ROWS, _BANDS), slice(largest, largest + 1))
        rows = torch.cat([weight[band] for band in bands])
        return cls(bands, rows, (count - 1) / (len(rows) - 1))

    def totals(self, *of_rows: torch.Tensor) -> list[float]:
        """Return the sums of squares over all rows of the weight, from those of the sample.

        All at once, because the host waits for the device.
        """
        if not len(of_rows[0]):
            return [0.0] * len(of_rows)
        squares = [rows.square().sum(1, dtype=torch.float64) for rows in of_rows]
        return torch.stack([s[:-1].sum() * self.scale + s[-1] for s in squares]).tolist()


def _ratio(plain: float, chosen: float) -> float | None:
    """Return the ratio of the norms of two errors from their squares; None if there is none."""
    return (plain / chosen) ** 0.5 if chosen > 0 else None


def _times(error: float | None, ratio: float | None) -> float | None:
    return None if error is None or ratio is None else error * ratio
