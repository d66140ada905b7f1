"""The max rule: every block's largest value maps to the largest code."""

from __future__ import annotations

import torch

from ..formats.nvfp4 import NVFP4_MAX, max_block_scales
from .second_moments import SecondMoments

# Below this a decode scale is subnormal in fp32, and GPUs may flush it to zero.
_SMALLEST_SCALE = 2.0**-126


class MaxRule:
    """``tensor_scale = amax / 2688``, ``block_scale = e4m3(block_amax / 6 / tensor_scale)``.

    The arithmetic and its order are comfy-kitchen's, so that codes and scales agree bit for bit.
    """

    name = "max"

    def for_input(
        self, mean_square: torch.Tensor | None, moments: SecondMoments | None = None
    ) -> MaxRule:
        """Return the rule itself: inputs do not matter to it."""
        return self

    def nvfp4_tensor_scale(self, amax: float) -> float:
        """``amax / (448 * 6)`` in fp32; 1.0 for an all-zero weight, whose block scales are 0."""
        return safe_scale(amax, NVFP4_MAX)

    def nvfp4_block_scales(
        self, blocks: torch.Tensor, block_amax: torch.Tensor, tensor_scale: torch.Tensor
    ) -> torch.Tensor:
        """Return the runtime's own block scales."""
        return max_block_scales(blocks, block_amax, tensor_scale)

    def nvfp4_values(
        self, weight: torch.Tensor, tensor_scale: torch.Tensor, *, rounded_input: bool
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return None: every value is rounded to the nearest."""
        return None

    def float8_scale(self, weight: torch.Tensor, amax: float, format_max: float) -> float:
        """``amax / format_max`` in fp32; 1.0 for an all-zero weight."""
        return safe_scale(amax, format_max)

    def integer_row_scales(
        self, rows: torch.Tensor, amax: torch.Tensor, largest: float, group: int | None
    ) -> torch.Tensor:
        """``amax / largest``."""
        return max_row_scales(amax, largest)

    def integer_tensor_scale(self, weight: torch.Tensor, amax: float, largest: float) -> float:
        """``amax / largest`` in fp32."""
        return float(max_row_scales(torch.tensor(amax), largest))


def safe_scale(amax: float, format_max: float) -> float:
    """Return ``amax / format_max`` in fp32, never subnormal; 1.0 for an ``amax`` of zero."""
    if amax == 0:
        return 1.0
    scale = torch.tensor(amax, dtype=torch.float32) / torch.tensor(format_max)
    return max(float(scale), _SMALLEST_SCALE)


def max_row_scales(amax: torch.Tensor, largest: float) -> torch.Tensor:
    """Return ``amax / largest``; as tensors, because GPUs divide by a number otherwise."""
    return amax / amax.new_full((), largest)
