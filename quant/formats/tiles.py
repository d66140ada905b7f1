"""Block scales in cuBLAS tiles of 128 rows and 4 columns, as NVFP4 and MXFP8 store them."""

from __future__ import annotations

import torch

from .base import roundup

_TILE_ROWS, _TILE_COLUMNS = 128, 4


def tiled_shape(rows: int, blocks: int) -> tuple[int, int]:
    """Return the stored shape of scales ``[rows, blocks]``."""
    return roundup(rows, _TILE_ROWS), roundup(blocks, _TILE_COLUMNS)


def tile(scales: torch.Tensor) -> torch.Tensor:
    """Return scales ``[rows, blocks]`` in the tiled layout of `tiled_shape`; padding is zero."""
    import comfy_kitchen  # slow, because it imports torch's compiler, so import it only here

    return comfy_kitchen.to_blocked(scales, flatten=False)


def untile(stored: torch.Tensor, rows: slice, blocks: int) -> torch.Tensor:
    """Return the scale codes of some rows, uint8 ``[rows, blocks]``, from the tiled layout.

    Bands of 128 rows are contiguous, so a part of the rows needs only a part of the scales.
    """
    first, last = rows.start // _TILE_ROWS * _TILE_ROWS, roundup(rows.stop, _TILE_ROWS)
    band = stored[first:last].view(torch.uint8)
    import comfy_kitchen

    linear = comfy_kitchen.from_blocked(band, band.shape[0], blocks)
    return linear[rows.start - first : rows.stop - first].contiguous()
