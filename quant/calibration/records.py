"""The values statistics are made of: runs, and what one input tensor group was seen to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from .moments import InputMoments

COND, UNCOND, UNKNOWN_BRANCH = 0, 1, -1
BRANCH_NAMES = {COND: "cond", UNCOND: "uncond", UNKNOWN_BRANCH: "unknown"}


@dataclass(frozen=True)
class RunRecord:
    """One sampling run that was observed.

    ``id`` is a uuid4 in hex, ``started`` an ISO time in UTC, ``calls`` the number of model calls
    announced during the run, ``prompts`` what the user sampled, ``settings`` JSON values.
    """

    id: str
    started: str
    prompts: tuple[str, ...]
    calls: int
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form, read back by `from_json`."""
        return {
            "id": self.id,
            "started": self.started,
            "prompts": list(self.prompts),
            "calls": self.calls,
            "settings": dict(self.settings),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunRecord:
        """Rebuild a record from `to_json`'s form."""
        return cls(
            id=str(data["id"]),
            started=str(data["started"]),
            prompts=tuple(str(p) for p in data["prompts"]),
            calls=int(data["calls"]),
            settings=dict(data["settings"]),
        )


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """What the input of one linear layer was seen to be.

    Layers that always received the same tensor (q, k and v) share one object, named by
    ``input_id``, the first of their names. K is ``in_features``.

    A *record* is one forward call, or one CFG branch of it when the batch could be split. Per
    record, in the order seen: ``sigma`` float32 [N] (NaN when unknown), ``branch`` int8 [N]
    (0 cond, 1 uncond, -1 unknown), ``call_amax`` float32 [N] (max of |x| over every element), and
    ``run`` int32 [N], an index into the runs of the statistics.

    ``sum_squares`` float64 [K] is the sum of x^2 over ``tokens_used`` tokens, at most all
    ``tokens``; ``channel_amax`` float32 [K] covers every token. Records with a NaN or an infinity
    stay in ``call_amax`` and are left out of everything else.

    ``rows`` [R, K] (dtype of the activation) is a uniform sample of the tokens, ``priorities``
    float64 [R] in ascending order, and ``row_limit`` the bound below which every token's priority
    is held (infinity while no token was left out). ``row_run`` int32 [R] is the run of each row,
    an index into the runs of the statistics (-1: unknown). ``moments`` are the second moments, if
    they were gathered; no token is both in them and among the rows.
    """

    input_id: str
    in_features: int
    calls: int
    tokens: int
    tokens_used: int
    sigma: np.ndarray
    branch: np.ndarray
    call_amax: np.ndarray
    run: np.ndarray
    sum_squares: np.ndarray
    channel_amax: np.ndarray
    rows: torch.Tensor
    priorities: np.ndarray
    row_limit: float
    row_run: np.ndarray
    moments: InputMoments | None = None

    @property
    def nonfinite_calls(self) -> int:
        """Number of records whose activations held a NaN or an infinity."""
        return int(np.count_nonzero(~np.isfinite(self.call_amax)))

    @property
    def amax(self) -> float | None:
        """Largest |x| over every finite record, None when there is none."""
        finite = self.call_amax[np.isfinite(self.call_amax)]
        return float(finite.max()) if finite.size else None

    @property
    def mean_square(self) -> np.ndarray:
        """E[x^2] per input channel, float32 [K]; zeros when no token was usable."""
        return (self.sum_squares / max(self.tokens_used, 1)).astype(np.float32)

    def percentile(self, percent: float) -> float | None:
        """Percentile of the per-record amax (never of elements), None without finite records."""
        finite = self.call_amax[np.isfinite(self.call_amax)]
        return float(np.percentile(finite.astype(np.float64), percent)) if finite.size else None

    def select(self, branch: int | None = None) -> np.ndarray:
        """Boolean mask [N] of the finite records, of one CFG branch when given."""
        mask = np.isfinite(self.call_amax)
        return mask if branch is None else mask & (self.branch == branch)


@dataclass(frozen=True)
class SigmaBin:
    """The records with ``low`` <= sigma <= ``high``: their number and the range of their amax."""

    low: float
    high: float
    calls: int
    amax: float
    median: float


def amax_by_sigma(
    layer: LayerStatistics, bins: int | Sequence[float] = 10, branch: int | None = None
) -> tuple[SigmaBin, ...]:
    """Bin a layer's per-record amax by sigma, lowest sigma first; empty bins are left out.

    ``bins`` is a number of bins of equal counts, or ascending edges (the last bin is closed).
    Records without a sigma or with a NaN or an infinity are ignored.
    """
    mask = layer.select(branch) & np.isfinite(layer.sigma)
    order = np.argsort(layer.sigma[mask], kind="stable")
    sigma, amax = layer.sigma[mask][order], layer.call_amax[mask][order]
    if isinstance(bins, int):
        cuts = np.linspace(0, sigma.size, max(bins, 1) + 1).round().astype(int)
    else:
        edges = np.asarray(bins, dtype=np.float32)
        cuts = np.searchsorted(sigma, edges, side="left")
        cuts[-1] = np.searchsorted(sigma, edges[-1], side="right")
    return tuple(
        SigmaBin(
            low=float(sigma[a]),
            high=float(sigma[b - 1]),
            calls=int(b - a),
            amax=float(amax[a:b].max()),
            median=float(np.median(amax[a:b])),
        )
        for a, b in pairwise(cuts)
        if b > a
    )


def amax_by_branch(layer: LayerStatistics) -> dict[str, float]:
    """Largest |x| per CFG branch that was seen: keys ``cond``, ``uncond``, ``unknown``."""
    return {
        name: float(layer.call_amax[mask].max())
        for code, name in BRANCH_NAMES.items()
        if (mask := layer.select(code)).any()
    }


def order_runs(runs: Iterable[RunRecord]) -> tuple[RunRecord, ...]:
    """Put runs into their one canonical order: by start time, then id."""
    return tuple(sorted(runs, key=lambda run: (run.started, run.id)))
