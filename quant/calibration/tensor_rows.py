"""Read an activation [..., K] as rows of K channels without copying all of it.

No function waits for the device: positions are made on the host, and shapes never depend on data.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

# Elements of one temporary: small enough for the caches of a CPU, and on a GPU large enough to
# need few kernel launches.
_BLOCK_CPU = 2**20
_BLOCK_DEVICE = 2**22


def flat_rows(x: torch.Tensor) -> torch.Tensor | None:
    """Return ``x`` as a view [tokens, K]; None if its strides do not allow one."""
    try:
        return x.view(-1, x.shape[-1])
    except RuntimeError:
        return None


def index_tensor(positions: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return positions as an index tensor on a device, without waiting for the device."""
    # Before numpy 2, the default integer on Windows had 32 bits.
    index = torch.from_numpy(positions.astype(np.int64, copy=False))
    if device.type == "cuda":
        # A copy from pageable memory would wait for the stream.
        return index.pin_memory().to(device, non_blocking=True)
    return index.to(device)


def take_rows(x: torch.Tensor, positions: np.ndarray) -> torch.Tensor:
    """Return the tokens of ``x`` [..., K] at these positions, as a new tensor [r, K]."""
    flat = flat_rows(x)
    if flat is not None:
        return flat.index_select(0, index_tensor(positions, x.device))
    coordinates = np.unravel_index(positions, tuple(x.shape[:-1]))
    return x[tuple(index_tensor(np.ascontiguousarray(c), x.device) for c in coordinates)]


def channel_amax(x: torch.Tensor) -> torch.Tensor:
    """Return max |x| per channel, float32 [K], without temporaries; NaN if a channel has one."""
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
        # square_() would change the activation: float() of a float32 tensor is no copy.
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
