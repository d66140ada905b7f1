"""NVFP4 with the max rule by hand, value by value: independent of the package's arithmetic."""

from __future__ import annotations

import torch

GRID = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], dtype=torch.float64)


def through_nvfp4(values: torch.Tensor, tensor_scale: float) -> torch.Tensor:
    """Return values ``[rows, columns]`` stored as NVFP4 and read back, float64."""
    blocks = values.double().reshape(-1, 16)
    amax = blocks.abs().amax(1)
    block_scale = (amax / 6 / tensor_scale).clamp(max=448).float().to(torch.float8_e4m3fn)
    total = block_scale.double().unsqueeze(1) * tensor_scale
    magnitudes = torch.where(total > 0, blocks.abs() / total, 0.0)
    nearest = (magnitudes.unsqueeze(-1) - GRID).abs().argmin(-1)
    return (GRID[nearest] * total * blocks.sign()).reshape(values.shape)


def weight_through_nvfp4(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight quantized with ``amax / 2688`` as its tensor scale, float64."""
    return through_nvfp4(weight, float(weight.detach().abs().max()) / 2688)
