"""Tiled scales are comfy-kitchen's, byte for byte."""

from __future__ import annotations

import comfy_kitchen
import pytest
import torch
from nvfp4_foundry.quant.formats.tiles import tile, tiled_shape, untile


@pytest.mark.parametrize("shape", [(1, 1), (16, 2), (128, 4), (130, 5), (256, 192), (300, 7)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float8_e4m3fn, torch.float8_e8m0fnu])
def test_tiles_are_comfy_kitchens(shape: tuple[int, int], dtype: torch.dtype) -> None:
    codes = torch.randint(0, 255, shape, dtype=torch.uint8)
    tiled = tile(codes.view(dtype))
    wanted = comfy_kitchen.to_blocked(codes, flatten=False)
    assert tiled.dtype == dtype and tiled.shape == tiled_shape(*shape)
    assert torch.equal(tiled.view(torch.uint8), wanted)
    assert torch.equal(untile(tiled, slice(0, shape[0]), shape[1]), codes)


def test_some_rows_of_tiled_scales() -> None:
    codes = torch.randint(0, 255, (300, 7), dtype=torch.uint8)
    assert torch.equal(untile(tile(codes), slice(100, 290), 7), codes[100:290])
