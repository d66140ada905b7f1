"""Uniform samples of rows by priority sampling.

Every row gets a random priority, and the rows with the lowest are kept (a bottom-k sketch; Cohen
and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007). The choice depends on the
priorities alone, so samples merge exactly, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .tensor_rows import index_tensor


@dataclass(frozen=True, eq=False)
class Candidates:
    """The rows of one call to keep: positions int64 [r], priorities float64 [r], new limit."""

    positions: np.ndarray
    priorities: np.ndarray
    limit: float


def keep_lowest(priorities: np.ndarray, limit: float, capacity: int) -> tuple[np.ndarray, float]:
    """Return the mask of the priorities to keep and the new limit.

    Keeps the lowest ``capacity`` priorities below ``limit``. The limit falls to the lowest priority
    that was dropped, so that every row below the limit is still in the sample.
    """
    below = priorities[priorities < limit]
    if below.size > capacity:
        limit = float(np.partition(below, capacity)[capacity])
    return priorities < limit, limit


class Reservoir:
    """At most ``capacity`` rows of one input, on the device of the activations.

    ``rows`` is [capacity, K], or None while empty. ``priorities`` float64 [capacity] has infinity
    for a free slot, ``calls`` int64 [capacity] has the model call of each row. Only `to_host`
    reads from the device.

    ``earlier`` are the priorities of another sample of the same input, with which this one will be
    merged. They compete for the capacity, so that no row is chosen that the merge would drop.
    """

    def __init__(
        self, capacity: int, earlier: np.ndarray | None = None, limit: float = float("inf")
    ) -> None:
        """Start empty, with the limit of the earlier sample."""
        self.capacity = capacity
        self._earlier = np.empty(0) if earlier is None else earlier
        self.rows: torch.Tensor | None = None
        self.priorities = np.full(capacity, np.inf)
        self.calls = np.full(capacity, -1, dtype=np.int64)
        self.limit = limit

    def choose(self, count: int, rng: np.random.Generator) -> Candidates:
        """Draw priorities for ``count`` new rows and return the rows to keep."""
        drawn = rng.random(count)
        (positions,) = np.nonzero(drawn < self.limit)
        joint = np.concatenate([self.priorities, drawn[positions]])
        keep, limit = self._keep(joint, self.limit, self.capacity)
        positions = positions[keep[self.capacity :]]
        return Candidates(positions, drawn[positions], limit)

    def add(self, rows: torch.Tensor, candidates: Candidates, call: int) -> None:
        """Add the chosen rows ([r, K] of one call), replacing rows with higher priorities."""
        joint = np.concatenate([self.priorities, candidates.priorities])
        keep, self.limit = self._keep(joint, min(self.limit, candidates.limit), self.capacity)
        (free,) = np.nonzero(~keep[: self.capacity])
        (sources,) = np.nonzero(keep[self.capacity :])
        slots = free[: sources.size]
        self.priorities[free] = np.inf
        if sources.size:
            self._write(rows, sources, slots)
            self.priorities[slots] = candidates.priorities[sources]
            self.calls[slots] = call

    def shrink(self, capacity: int) -> None:
        """Lower the capacity, dropping the rows with the highest priorities."""
        keep, self.limit = self._keep(self.priorities, self.limit, capacity)
        (kept,) = np.nonzero(keep)
        if self.rows is not None:
            smaller = self.rows.new_empty(capacity, self.rows.shape[1])
            smaller[: kept.size] = self.rows.index_select(0, index_tensor(kept, self.rows.device))
            self.rows = smaller
        free = (0, capacity - kept.size)
        self.priorities = np.pad(self.priorities[kept], free, constant_values=np.inf)
        self.calls = np.pad(self.calls[kept], free, constant_values=-1)
        self.capacity = capacity

    def copy(self) -> Reservoir:
        """Return an independent copy."""
        other = Reservoir(self.capacity, self._earlier)
        other.rows = None if self.rows is None else self.rows.clone()
        other.priorities = self.priorities.copy()
        other.calls = self.calls.copy()
        other.limit = self.limit
        return other

    def to_host(self, in_features: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """Return copies of the rows [R, K] on the CPU, their priorities, lowest first, and calls.

        Leaves out rows with a NaN or an infinity. Reads from the device, so hooks must not call it.
        """
        order = np.argsort(self.priorities, kind="stable")
        order = order[: np.count_nonzero(np.isfinite(self.priorities))]
        if self.rows is None:
            return torch.empty(0, in_features), self.priorities[order], self.calls[order]
        rows = self.rows.cpu()[torch.from_numpy(order)]
        finite = torch.isfinite(rows).all(dim=1)
        order = order[finite.numpy()]
        return rows[finite], self.priorities[order], self.calls[order]

    def _keep(
        self, priorities: np.ndarray, limit: float, capacity: int
    ) -> tuple[np.ndarray, float]:
        """Return `keep_lowest` of these priorities together with the earlier ones."""
        keep, limit = keep_lowest(np.concatenate([self._earlier, priorities]), limit, capacity)
        return keep[self._earlier.size :], limit

    def _write(self, rows: torch.Tensor, sources: np.ndarray, slots: np.ndarray) -> None:
        """Copy ``rows[sources]`` into the buffer at ``slots``; move it to a new device or dtype."""
        buffer = self.rows
        if buffer is None:
            buffer = rows.new_empty(self.capacity, rows.shape[1])
        elif buffer.dtype != rows.dtype or buffer.device != rows.device:
            dtype = torch.promote_types(buffer.dtype, rows.dtype)
            buffer = buffer.to(device=rows.device, dtype=dtype)
        if sources.size < rows.shape[0]:
            rows = rows.index_select(0, index_tensor(sources, rows.device))
        buffer.index_copy_(0, index_tensor(slots, rows.device), rows.to(buffer.dtype))
        self.rows = buffer
