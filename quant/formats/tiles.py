"""Block scales in cuBLAS tiles of 128 rows and 4 columns, as NVFP4 and MXFP8 store them.

A tile is 512 contiguous bytes: 32 groups of the 4 rows that are 32 apart, each row 4 columns. Tiles
follow one another along the columns, then along the rows. The layout is the "1D block scaling
factors layout" of NVIDIA's cuBLAS documentation. It is rearranged here and not by comfy-kitchen,
whose import loads torch's compiler and takes seconds.
"""

from __future__ import annotations

import torch

from .base import roundup

_TILE_ROWS, _TILE_COLUMNS = 128, 4
_GROUP_ROWS = 32


def tiled_shape(rows: int, blocks: int) -> tuple[int, int]:
    """Return the stored shape of scales ``[rows, blocks]``."""
    return roundup(rows, _TILE_ROWS), roundup(blocks, _TILE_COLUMNS)


def tile(scales: torch.Tensor) -> torch.Tensor:
    """Return scales ``[rows, blocks]`` in the tiled layout of `tiled_shape`; padding is zero."""
    rows, blocks = scales.shape
    height, width = tiled_shape(rows, blocks)
    codes = scales.view(torch.uint8)
    if (height, width) != (rows, blocks):
        codes = torch.nn.functional.pad(codes, (0, width - blocks, 0, height - rows))
    tiles = codes.view(-1, _TILE_ROWS // _GROUP_ROWS, _GROUP_ROWS, width // _TILE_COLUMNS, 4)
    return tiles.permute(0, 3, 2, 1, 4).reshape(height, width).view(scales.dtype)


def untile(stored: torch.Tensor, rows: slice, blocks: int) -> torch.Tensor:
    """Return the scale codes of some rows, uint8 ``[rows, blocks]``, from the tiled layout.

    Bands of 128 rows are contiguous, so a part of the rows needs only a part of the scales.
    """
    first, last = rows.start // _TILE_ROWS * _TILE_ROWS, roundup(rows.stop, _TILE_ROWS)
    band = stored[first:last].view(torch.uint8)
    height, width = band.shape[0], roundup(blocks, _TILE_COLUMNS)
    tiles = band.reshape(-1, width // _TILE_COLUMNS, _GROUP_ROWS, _TILE_ROWS // _GROUP_ROWS, 4)
    linear = tiles.permute(0, 3, 2, 1, 4).reshape(height, width)
    return linear[rows.start - first : rows.stop - first, :blocks].contiguous()
