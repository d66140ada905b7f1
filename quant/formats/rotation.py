"""The rotation of ConvRot: multiply groups of input channels by a regular Hadamard matrix.

With rotated weights and rotated inputs, a layer computes the same output, but outliers are spread
over their group. The matrix is the Kronecker power of comfy-kitchen's 4x4 matrix with a -1 in every
row and column (ConvRot, arXiv 2512.03673). It is symmetric, so it is its own inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import log2
from typing import Any

import torch

from .base import marker_parameter

#: Group sizes for which comfy-kitchen has CUDA kernels, the best first.
GROUPS = (256, 64, 16)
#: The group size that ComfyUI assumes if a marker names none (comfy/ops.py).
DEFAULT_GROUP = 256

_LARGEST = 4096


def is_group_size(size: int) -> bool:
    """Whether the size is a power of 4, for which there is a regular Hadamard matrix.

    Larger ones than any tool writes are refused: the matrix of 65536 takes 17 GB.
    """
    return 4 <= size <= _LARGEST and log2(size) % 2 == 0


def marked_group_size(marker: Mapping[str, Any]) -> int | None:
    """Return the group size of a marker, or None if it is not a valid size."""
    value = marker_parameter(marker, "convrot_groupsize", DEFAULT_GROUP)
    try:
        size = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if is_group_size(size) else None


def rotate(values: torch.Tensor, group: int) -> torch.Tensor:
    """Return ``[rows, columns]`` with groups of ``group`` columns rotated, in the same dtype.

    The product is the one that comfy-kitchen computes for weights, including the transposed view of
    the symmetric matrix. The order of float32 sums in a matrix library depends on the number of
    rows and threads, so only the whole weight at once gives the same bits as comfy-kitchen.
    """
    return _product(values, _hadamard_on(group, values.device, values.dtype).T)


def rotate_inputs(values: torch.Tensor, group: int) -> torch.Tensor:
    """Rotate activations as in `rotate`, but by the matrix that is not transposed.

    comfy-kitchen does the same.
    """
    return _product(values, _hadamard_on(group, values.device, values.dtype))


def _product(values: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    rows, columns = values.shape
    groups = values.reshape(rows, -1, len(matrix))
    return (groups @ matrix).reshape(rows, columns)


@lru_cache(maxsize=8)
def _hadamard_on(size: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return `hadamard` on a device. It is kept there, because a transfer makes the host wait."""
    with torch.inference_mode(False):
        return hadamard(size).to(device, dtype)


@lru_cache(maxsize=4)
def hadamard(size: int) -> torch.Tensor:
    """Return the orthogonal regular Hadamard matrix ``[size, size]``, float32 on CPU."""
    with torch.inference_mode(False):  # the cached tensor must also work outside inference mode
        ones = 1.0 - 2.0 * torch.eye(4).flip(1)
        matrix = torch.ones(1, 1)
        while len(matrix) < size:
            matrix = torch.kron(matrix, ones)
        return matrix / size**0.5
