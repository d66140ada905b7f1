"""Static input scales of sources: what they cover, and which of them mean nothing."""

from __future__ import annotations

from math import isfinite

import torch

from ..base import TensorSource
from .parts import FLOAT8, number, part

#: The suffixes of stored scales that multiply the codes of activations.
INPUT_SCALES = ("input_scale", "scale_input")
# The largest activation that a scale covers is between these in any model that works. Activations
# of text encoders reach 1e5. A scale of 1e-30 was never measured.
_LEAST, _LARGEST = 1e-9, 1e9
_INT8_MAX = 127.0


def input_amax_of(source: TensorSource, layer: str, suffix: str, format_max: float) -> float | None:
    """Return the largest activation that a stored input scale covers.

    None if there is no scale, or if it cannot be one: negative, zero, NaN, infinite, or absurd.
    """
    scale = number(source, layer, suffix)
    if scale is None or not is_usable(scale * format_max):
        return None
    return scale * format_max


def code_input_amax(
    source: TensorSource, layer: str, suffix: str, dtype: torch.dtype
) -> float | None:
    """Return the largest activation that a stored input scale for 8-bit codes covers.

    None also for a float8 scale of 1.0, because that is the default of runtimes, not a measurement.
    """
    if dtype not in FLOAT8:
        return input_amax_of(source, layer, suffix, _INT8_MAX)
    if number(source, layer, suffix) == 1.0:
        return None
    return input_amax_of(source, layer, suffix, torch.finfo(dtype).max)


def is_usable(amax: float) -> bool:
    """Whether a number can be the largest activation of a layer."""
    return isfinite(amax) and _LEAST <= amax <= _LARGEST


def odd_input_scales(source: TensorSource) -> dict[str, float]:
    """Return the stored input scales that cannot be any, by layer."""
    odd = {}
    for name in source.tensors:
        layer, _, suffix = name.rpartition(".")
        if suffix not in INPUT_SCALES or part(source, layer, "weight") is None:
            continue
        scale = number(source, layer, suffix)
        if scale is not None and not is_usable(scale * _INT8_MAX):
            odd[layer] = scale
    return odd
