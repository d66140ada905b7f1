"""Measure one activation: everything a calibration needs from it, kept on its device."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .records import UNKNOWN_BRANCH
from .reservoir import Candidates, Reservoir
from .tensor_rows import channel_amax, channel_sum_squares, take_rows

_MEASURABLE = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_PROBES = 256
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class TensorIdentity:
    """Recognise the tensor that was measured, and whether it still has the same values.

    The weak reference does not keep an activation alive, and is never mistaken for another tensor
    with a reused id. ``version`` is torch's counter of in-place changes. Inference tensors have no
    counter; for them, ``probe`` has the bits of some elements.
    """

    reference: weakref.ref[torch.Tensor]
    pointer: int
    layout: tuple[torch.Size, tuple[int, ...]]
    version: int | None
    probe: torch.Tensor | None

    @classmethod
    def of(cls, x: torch.Tensor) -> TensorIdentity:
        """Return the identity of ``x``."""
        return cls(
            reference=weakref.ref(x),
            pointer=x.data_ptr(),
            layout=(x.shape, x.stride()),
            version=None if x.is_inference() else x._version,
            probe=_probe(x) if x.is_inference() else None,
        )

    def matches(self, x: torch.Tensor) -> bool:
        """Return whether ``x`` is that tensor, unchanged as far as the host can tell."""
        return (
            self.reference() is x
            and self.pointer == x.data_ptr()
            and self.layout == (x.shape, x.stride())
            and (self.probe is not None if x.is_inference() else self.version == x._version)
        )

    def unchanged(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return a device bool [] if only the device can tell; None if `matches` is enough."""
        if self.probe is None:
            return None
        probe = _probe(x)
        return None if probe is None else (probe == self.probe).all()


@dataclass(eq=False)
class Measurement:
    """The contribution of one activation tensor. ``claimed`` are the layers that received it.

    ``amax`` float32 [records]; ``sum_squares`` and ``channel_amax`` float32 [K], without records
    that are not finite; ``tokens_used`` per record; ``rows`` for the reservoir; ``moment_rows``
    [T, K] for second moments. No token is in both.
    """

    identity: TensorIdentity
    call: int
    branches: tuple[int, ...]
    tokens: int
    tokens_used: tuple[int, ...]
    amax: torch.Tensor
    sum_squares: torch.Tensor
    channel_amax: torch.Tensor
    rows: torch.Tensor | None
    candidates: Candidates
    moment_rows: torch.Tensor | None = None
    claimed: set[str] = field(default_factory=set)


def is_measurable(x: Any, in_features: int) -> bool:
    """Return whether ``x`` is a plain floating-point tensor of this width (no subclass)."""
    return (
        type(x) in (torch.Tensor, torch.nn.Parameter)
        and x.dtype in _MEASURABLE
        and x.layout is torch.strided
        and not x.is_nested
        and x.ndim >= 1
        and x.shape[-1] == in_features
        and x.numel() > 0
    )


def measure(
    x: torch.Tensor,
    branches: tuple[int, ...],
    call: int,
    reservoir: Reservoir,
    max_tokens: int | None,
    rng: np.random.Generator,
    moment_tokens: int = 0,
) -> Measurement:
    """Measure an activation [..., K] without waiting for the device or changing anything.

    Splits the first dimension into one record per entry of ``branches``, if possible.
    ``max_tokens`` limits the tokens per record for the sums of squares, ``moment_tokens`` the
    tokens per call for second moments.
    """
    identity = TensorIdentity.of(x)
    x = x.detach()
    if x.ndim == 1:
        x = x.unsqueeze(0)
    if len(branches) > 1 and x.shape[0] % len(branches):
        branches = (UNKNOWN_BRANCH,)
    amax, squares, peaks, used = [], [], [], []
    for part in x.split(x.shape[0] // len(branches)):
        first, step, count = _token_subset(part.numel() // part.shape[-1], max_tokens, rng)
        peak = channel_amax(part)
        largest = peak.amax()
        finite = torch.isfinite(largest)
        amax.append(largest)
        peaks.append(torch.where(finite, peak, 0.0))
        squares.append(torch.where(finite, channel_sum_squares(part, first, step), 0.0))
        used.append(count)
    tokens = x.numel() // x.shape[-1]
    candidates = reservoir.choose(tokens, rng)
    moment_rows = None
    if moment_tokens:
        first, step, _ = _token_subset(tokens, moment_tokens, rng)
        chosen = np.setdiff1d(np.arange(first, tokens, step), candidates.positions)
        moment_rows = take_rows(x, chosen) if chosen.size else None
    return Measurement(
        identity=identity,
        call=call,
        branches=branches,
        tokens=tokens,
        tokens_used=tuple(used),
        amax=torch.stack(amax),
        sum_squares=squares[0] if len(squares) == 1 else torch.stack(squares).sum(0),
        channel_amax=peaks[0] if len(peaks) == 1 else torch.stack(peaks).amax(0),
        rows=take_rows(x, candidates.positions) if candidates.positions.size else None,
        candidates=candidates,
        moment_rows=moment_rows,
    )


def _token_subset(
    tokens: int, max_tokens: int | None, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Return first, step and count of an evenly spaced choice of tokens."""
    if max_tokens is None or tokens <= max_tokens:
        return 0, 1, tokens
    # Odd, with a random start: an even step could take the same image columns every time.
    step = -(-tokens // max_tokens) | 1
    first = int(rng.integers(step))
    return first, step, len(range(first, tokens, step))


def _probe(x: torch.Tensor) -> torch.Tensor | None:
    """Return the bits of some elements spread over ``x``; None if it has no flat view."""
    try:
        flat = x.view(-1)
    except RuntimeError:
        return None
    # An odd step probes different channels in rows of an even width.
    sample = flat[:: (x.numel() // _PROBES) | 1]
    return sample.view(_BITS[x.element_size()]).clone()
