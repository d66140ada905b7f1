"""How large the 8-bit codes of a weight are, from a bounded part of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from ..base import TensorSource

# Weights up to this many values are read whole; of larger ones, as many values in so many runs.
_VALUES, _RUNS = 1 << 21, 64


def code_max(dtype: torch.dtype) -> float:
    """Return the largest value of a dtype of 8-bit codes."""
    return 127.0 if dtype == torch.int8 else torch.finfo(dtype).max


@dataclass(frozen=True)
class Size:
    """The largest magnitude of some codes, and their root mean square."""

    amax: float
    rms: float


def sampled_size(source: TensorSource, name: str) -> Size:
    """Return how large a part of a tensor of float8 or int8 codes is. NaN counts as zero."""
    size = prod(source.info(name).shape)
    if not size:
        return Size(0.0, 0.0)
    if size <= _VALUES:
        values = source.load(name)
    else:
        length = _VALUES // _RUNS
        step = (size - length) // (_RUNS - 1)
        values = source.load_runs(name, [step * run for run in range(_RUNS)], length)
    values = values.float().nan_to_num_(0.0, 0.0, 0.0)
    return Size(float(values.abs().max()), float(values.square().mean()) ** 0.5)
