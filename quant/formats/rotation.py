"""The rotation of ConvRot: groups of input channels times a regular Hadamard matrix.

A layer computes the same with rotated weights and rotated inputs, but outliers are spread over
their group. The matrix is the Kronecker power of comfy-kitchen's 4x4 one with a -1 in every row
and column (ConvRot, arXiv 2512.03673); it is symmetric, so it is its own inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import log2
from typing import Any

import torch

from .base import marker_parameter

#: Group sizes that comfy-kitchen's CUDA kernels rotate themselves, the best first.
GROUPS = (256, 64, 16)
#: What ComfyUI assumes where a marker names no size (comfy/ops.py).
DEFAULT_GROUP = 256


def is_group_size(size: int) -> bool:
    """Whether there is a regular Hadamard matrix of this size: a power of 4."""
    return size >= 4 and log2(size) % 2 == 0


def marked_group_size(marker: Mapping[str, Any]) -> int | None:
    """Return the group size a marker names, None if nothing can be rotated by it."""
    value = marker_parameter(marker, "convrot_groupsize", DEFAULT_GROUP)
    try:
        size = int(value)
    except (TypeError, ValueError):
        return None
    return size if is_group_size(size) else None


def rotate(values: torch.Tensor, group: int) -> torch.Tensor:
    """Return ``[rows, columns]`` with every ``group`` columns rotated, in the dtype of ``values``.

    The product is comfy-kitchen's own for weights, down to the transposed view of the symmetric
    matrix. Sums of float32 depend on the order a matrix library takes, and that on the number of
    rows and of threads: the same bits as there come from the whole weight at once only.
    """
    return _product(values, hadamard(group).T)


def rotate_inputs(values: torch.Tensor, group: int) -> torch.Tensor:
    """Return `rotate` of activations, which comfy-kitchen multiplies by the matrix as it is."""
    return _product(values, hadamard(group))


def _product(values: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    rows, columns = values.shape
    groups = values.reshape(rows, -1, len(matrix))
    return (groups @ matrix.to(values.device, values.dtype)).reshape(rows, columns)


@lru_cache(maxsize=4)
def hadamard(size: int) -> torch.Tensor:
    """Return the orthogonal regular Hadamard matrix ``[size, size]``, float32 on CPU."""
    with torch.inference_mode(False):  # a tensor made there could not be used elsewhere
        ones = 1.0 - 2.0 * torch.eye(4).flip(1)
        matrix = torch.ones(1, 1)
        while len(matrix) < size:
            matrix = torch.kron(matrix, ones)
        return matrix / size**0.5
