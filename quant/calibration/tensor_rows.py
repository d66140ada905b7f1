"""Reading an activation [..., K] as rows of K channels without copying it whole.

Nothing here waits for the device: positions are made on the host, shapes never depend on data.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

# Elements of one temporary. On a CPU it should stay near the caches; on a GPU few launches count.
_BLOCK_CPU = 2**20
_BLOCK_DEVICE = 2**22


def flat_rows(x: torch.Tensor) -> torch.Tensor | None:
    """Return ``x`` as a view [tokens, K], None when its strides do not allow one."""
    try:
        return x.view(-1, x.shape[-1])
    except RuntimeError:
        return None


def index_tensor(positions: np.ndarray, device: torch.device) -> torch.Tensor:
    """Move positions to a device without waiting for it."""
    # Before numpy 2 the default integer of Windows had 32 bits.
    index = torch.from_numpy(positions.astype(np.int64, copy=False))
    if device.type == "cuda":
        # From pageable memory the copy would wait for the stream.
        return index.pin_memory().to(device, non_blocking=True)
    return index.to(device)


def take_rows(x: torch.Tensor, positions: np.ndarray) -> torch.Tensor:
    """Gather rows of ``x`` [..., K] by position among its tokens: a new tensor [r, K]."""
    flat = flat_rows(x)
    if flat is not None:
        return flat.index_select(0, index_tensor(positions, x.device))
    coordinates = np.unravel_index(positions, tuple(x.shape[:-1]))
    return x[tuple(index_tensor(np.ascontiguousarray(c), x.device) for c in coordinates)]


def channel_amax(x: torch.Tensor) -> torch.Tensor:
    """Return max |x| per channel, float32 [K], NaN where a channel has one; no temporaries."""
    flat = flat_rows(x)
    source = x if flat is None else flat
    dims = tuple(range(source.ndim - 1))
    return torch.maximum(source.amax(dims), source.amin(dims).neg()).float()


def channel_sum_squares(x: torch.Tensor, first: int, step: int) -> torch.Tensor:
    """Return the sum of squares per channel over the tokens first, first + step, ...: float32 [K].

    Works in blocks of a bounded size. Saturates at the largest float32 instead of overflowing.
    """
    total = torch.zeros(x.shape[-1], dtype=torch.float32, device=x.device)
    for block in _blocks(x, first, step):
        # Not square_(): float() of a float32 tensor is the activation itself.
        values = block.float()
        total += torch.mul(values, values).sum(0)
    return total.clamp_(max=torch.finfo(torch.float32).max)


def _blocks(x: torch.Tensor, first: int, step: int) -> Iterator[torch.Tensor]:
    tokens, channels = x.numel() // x.shape[-1], x.shape[-1]
    size = max(1, (_BLOCK_CPU if x.device.type == "cpu" else _BLOCK_DEVICE) // channels)
    flat = flat_rows(x)
    positions = np.arange(first, tokens, step)
    for start in range(0, positions.size, size):
        chosen = positions[start : start + size]
        if flat is None:
            yield take_rows(x, chosen)
        else:
            yield flat[chosen[0] : chosen[-1] + 1 : step]
