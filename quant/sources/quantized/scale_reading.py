"""Whether the scales of 8-bit codes multiply or divide, by the size of the weights they give."""

from __future__ import annotations

from enum import Enum
from math import isfinite
from statistics import median

from ...errors import SourceError
from ..base import TensorSource
from .sampled_codes import sampled_size

# The largest weight of a typical layer is not above the first number in any known model. A wrong
# reading has to give more than the second one.
_POSSIBLE, _IMPOSSIBLE = 30.0, 1000.0
_SAMPLES = 12


class Reading(Enum):
    """What scales do to codes."""

    MULTIPLIES = "multiplies"
    DIVIDES = "divides"
    UNKNOWN = "unknown"


def scale_reading(source: TensorSource, suffix: str, layers: list[str]) -> Reading:
    """Return what the scales ``<layer>.suffix`` do, from some of these layers.

    Unknown if the weights have a possible size in both readings, or in neither.
    """
    multiplied, divided = [], []
    for layer in layers[:: max(1, len(layers) // _SAMPLES)]:
        values = source.load(f"{layer}.{suffix}").float().abs()
        if not values.numel():
            continue
        largest, least = float(values.max()), float(values.min())
        amax = sampled_size(source, f"{layer}.weight").amax
        if isfinite(largest) and least:
            multiplied.append(amax * largest)
            divided.append(amax / least)
    if multiplied:
        factor, divisor = median(multiplied), median(divided)
        if factor <= _POSSIBLE and divisor >= _IMPOSSIBLE:
            return Reading.MULTIPLIES
        if divisor <= _POSSIBLE and factor >= _IMPOSSIBLE:
            return Reading.DIVIDES
    return Reading.UNKNOWN


def require_factors(source: TensorSource, suffix: str, layers: list[str]) -> None:
    """Refuse scales that multiply by convention, but whose values show that they divide.

    Raises:
        SourceError: the message names one of them.
    """
    if layers and scale_reading(source, suffix, layers) is Reading.DIVIDES:
        raise SourceError(
            f"{source.description}: {layers[0]}.{suffix} would make the weights thousands of times "
            "too large, so it seems to divide, which is not how such scales are read; start from "
            "the bf16 or fp16 version of the model"
        )
