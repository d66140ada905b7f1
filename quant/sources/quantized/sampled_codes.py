"""How large the 8-bit codes of a weight are, from a bounded part of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from ..base import TensorSource

#: Weights up to this many values are read whole; of larger ones, as many values in some runs.
MANY, FEW = 1 << 21, 1 << 15
_RUNS = 64


def code_max(dtype: torch.dtype) -> float:
    """Return the largest value of a dtype of 8-bit codes."""
    return 127.0 if dtype == torch.int8 else torch.finfo(dtype).max


@dataclass(frozen=True)
class Size:
    """The largest magnitude of some codes, and their root mean square."""

    amax: float
    rms: float


def sampled_size(source: TensorSource, name: str, values: int = MANY) -> Size:
    """Return how large a part of a tensor of float8 or int8 codes is. NaN counts as zero."""
    size = prod(source.info(name).shape)
    if not size:
        return Size(0.0, 0.0)
    if size <= values:
        codes = source.load(name)
    else:
        length = values // _RUNS
        step = (size - length) // (_RUNS - 1)
        codes = source.load_runs(name, [step * run for run in range(_RUNS)], length)
    codes = codes.float().nan_to_num_(0.0, 0.0, 0.0)
    return Size(float(codes.abs().max()), float(codes.square().mean()) ** 0.5)
