"""Running totals of an input that a group of layers shares."""

from __future__ import annotations

import numpy as np
import torch

from .measurement import Measurement
from .moment_accumulator import MomentAccumulator
from .moments import MomentPart
from .reservoir import Candidates, Reservoir, keep_lowest
from .tensor_rows import index_tensor


class InputGroup:
    """Totals of the layers that have received the same tensors in every call so far.

    ``pending`` is the latest measurement. It is added to the totals once every member has received
    it or another tensor arrives. Until then a member may receive another tensor, and must be able
    to leave the group with the totals from before.
    """

    def __init__(
        self, members: set[str], in_features: int, element_size: int, reservoir: Reservoir
    ) -> None:
        """Start with empty totals and an empty reservoir; ``element_size`` in bytes."""
        self.members = members
        self.in_features = in_features
        self.element_size = element_size
        self.reservoir = reservoir
        self.pending: Measurement | None = None
        self.calls = 0
        self.tokens = 0
        # Per record: index of the model call, CFG branch, tokens behind the sum of squares.
        self.records: list[tuple[int, int, int]] = []
        #: Second moments of the current run, if they are collected, and those of earlier runs.
        self.moments: MomentAccumulator | None = None
        self.moment_parts: list[MomentPart] = []
        self._latest_peaks: dict[tuple[int, ...], torch.Tensor] = {}
        self._amax: torch.Tensor | None = None
        self._sum_squares: torch.Tensor | None = None
        self._channel_amax: torch.Tensor | None = None

    @property
    def open_to_join(self) -> bool:
        """Whether a new layer may join: before the first call it has the same history."""
        return self.calls == 0

    @property
    def settled(self) -> bool:
        """Whether the pending measurement has reached every member and nobody can join."""
        return (
            self.pending is not None
            and not self.open_to_join
            and self.pending.claimed >= self.members
        )

    def commit(self) -> None:
        """Add the pending measurement to the totals of all members."""
        m, self.pending = self.pending, None
        if m is None:
            return
        if self._sum_squares is None or self._channel_amax is None:
            squares, peaks = m.sum_squares.to(_sum_dtype(m.sum_squares.device)), m.channel_amax
        else:
            squares = self._sum_squares.to(m.sum_squares.device) + m.sum_squares
            peaks = torch.maximum(self._channel_amax.to(m.channel_amax.device), m.channel_amax)
        self._append_amax(m.amax)
        if m.moment_rows is not None and self.moments is not None:
            self.moments.add(m.moment_rows, m.amax.amax(), self._is_fresh(m), m.branches)
        if m.rows is not None:
            self.reservoir.add(m.rows, m.candidates, m.call)
        else:
            self.reservoir.limit = min(self.reservoir.limit, m.candidates.limit)
        self._sum_squares, self._channel_amax = squares, peaks
        self.calls += 1
        self.tokens += m.tokens
        self.records += [
            (m.call, branch, used) for branch, used in zip(m.branches, m.tokens_used, strict=True)
        ]

    def break_off(self) -> None:
        """Discard the second moments of the run, and a pending measurement that is incomplete.

        For a run that an exception ends. Members that did not receive the pending tensor would
        otherwise leave the group, although they share every input.
        """
        self.moments = None
        if self.pending is not None and not self.settled:
            self.pending = None

    def fork(self, leaving: set[str]) -> InputGroup:
        """Move members to a new group with the totals from before ``pending``, and return it."""
        other = InputGroup(leaving, self.in_features, self.element_size, self.reservoir.copy())
        self.members = self.members - leaving
        other.calls, other.tokens = self.calls, self.tokens
        other.records = list(self.records)
        other.moment_parts = list(self.moment_parts)
        # The sums are never changed in place, so both groups may hold them. The amax buffer is.
        other._amax = None if self._amax is None else self._amax.clone()
        other._sum_squares, other._channel_amax = self._sum_squares, self._channel_amax
        return other

    def shrink(self, capacity: int) -> None:
        """Lower the number of rows kept, including those of the pending measurement."""
        self.reservoir.shrink(capacity)
        m = self.pending
        if m is not None and m.rows is not None and m.rows.shape[0] > capacity:
            drawn = m.candidates.priorities
            keep, limit = keep_lowest(drawn, m.candidates.limit, capacity)
            (kept,) = np.nonzero(keep)
            m.rows = m.rows.index_select(0, index_tensor(kept, m.rows.device))
            m.candidates = Candidates(m.candidates.positions[kept], drawn[kept], limit)

    def host_totals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return amax float32 [records], sum_squares float64 [K], channel_amax float32 [K].

        Reads from the device, so hooks must not call it.
        """
        if self._amax is None or self._sum_squares is None or self._channel_amax is None:
            zeros = np.zeros(self.in_features)
            return np.empty(0, np.float32), zeros, zeros.astype(np.float32)
        return (
            self._amax[: len(self.records)].cpu().numpy().copy(),
            self._sum_squares.cpu().double().numpy().copy(),
            self._channel_amax.cpu().numpy().copy(),
        )

    def _is_fresh(self, m: Measurement) -> torch.Tensor:
        """Return whether the input differs from the last one of these branches: a device bool [].

        A prompt's context is the same in every step. If it counted each time, a few tokens would
        look like many. The comparison uses the largest value of every channel, which covers all
        tokens.
        """
        before = self._latest_peaks.get(m.branches)
        self._latest_peaks[m.branches] = m.channel_amax
        if before is None or before.device != m.channel_amax.device:
            return torch.ones((), dtype=torch.bool, device=m.channel_amax.device)
        return (before != m.channel_amax).any()

    def _append_amax(self, values: torch.Tensor) -> None:
        """Append to one growing buffer: a tensor per call would take 512 bytes each on CUDA."""
        start, end = len(self.records), len(self.records) + values.numel()
        buffer = self._amax
        if buffer is None or buffer.numel() < end or buffer.device != values.device:
            larger = values.new_empty(max(64, 2 * end))
            if buffer is not None:
                larger[:start] = buffer[:start]
            self._amax = buffer = larger
        buffer[start:end] = values


def _sum_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of the sums: float64, or float32 on devices without float64."""
    return torch.float32 if device.type == "mps" else torch.float64
