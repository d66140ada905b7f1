"""Measure how much two tensors differ, for samples, images and weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .errors import CompareError

# Elements per step, so that the float64 copies of a long video stay small.
_STEP = 1 << 20


@dataclass(frozen=True)
class Difference:
    """Sums over the values of two tensors of one shape. Differences of several pairs can be added.

    Attributes:
        squared_error: ``sum((other - reference)^2)``.
        squared_norm: ``sum(reference^2)``.
        count: number of values.
        largest: ``max |other - reference|``.
    """

    squared_error: float = 0.0
    squared_norm: float = 0.0
    count: int = 0
    largest: float = 0.0

    def __add__(self, more: Difference) -> Difference:
        return Difference(
            self.squared_error + more.squared_error,
            self.squared_norm + more.squared_norm,
            self.count + more.count,
            max(self.largest, more.largest, key=lambda value: (math.isnan(value), value)),
        )

    @property
    def relative_error(self) -> float:
        """``||other - reference|| / ||reference||``; infinite if only the reference is zero."""
        if self.squared_norm:
            return math.sqrt(self.squared_error / self.squared_norm)
        return math.inf if self.squared_error else 0.0

    @property
    def mean_squared_error(self) -> float:
        """Mean of the squared differences."""
        return self.squared_error / max(1, self.count)

    @property
    def is_finite(self) -> bool:
        """Whether both tensors hold neither NaN nor infinite values."""
        return math.isfinite(self.squared_error) and math.isfinite(self.squared_norm)

    def psnr(self, peak: float = 1.0) -> float:
        """Return the peak signal-to-noise ratio in dB for values up to ``peak``."""
        mean = self.mean_squared_error
        return 10 * math.log10(peak**2 / mean) if mean else math.inf


def difference(reference: torch.Tensor, other: torch.Tensor) -> Difference:
    """Compare two tensors of one shape in float64, with any dtypes and on any devices.

    Works in steps, which keeps memory small.

    Raises:
        CompareError: the shapes differ.
    """
    _require_same_shape(reference, other)
    total = Difference()
    for wanted, given in zip(_steps(reference), _steps(other), strict=True):
        error = given - wanted
        largest = float(error.abs().amax())
        squared_error, squared_norm = float(error @ error), float(wanted @ wanted)
        total += Difference(squared_error, squared_norm, wanted.numel(), largest)
    return total


def differences(reference: torch.Tensor, other: torch.Tensor) -> tuple[Difference, ...]:
    """Compare two batches ``[B, ...]`` item by item.

    Raises:
        CompareError: the shapes differ.
    """
    _require_same_shape(reference, other)
    return tuple(difference(a, b) for a, b in zip(reference, other, strict=True))


def _require_same_shape(reference: torch.Tensor, other: torch.Tensor) -> None:
    if reference.shape != other.shape:
        a, b = ("x".join(map(str, tensor.shape)) for tensor in (reference, other))
        raise CompareError(f"the shapes differ: the reference is {a}, the other is {b}")


def _steps(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    if tensor.numel():
        for part in tensor.detach().reshape(-1).split(_STEP):
            yield part.cpu().to(torch.float64)  # some devices do not support float64
