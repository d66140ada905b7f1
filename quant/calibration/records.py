"""The values that a calibration consists of: runs, and the statistics of each layer's input."""

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
    announced during the run. ``prompts`` are the user's prompts, ``settings`` are JSON values.
    ``interrupted``: the run was cancelled or failed, so its later steps are missing.
    """

    id: str
    started: str
    prompts: tuple[str, ...]
    calls: int
    settings: Mapping[str, Any]
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data that `from_json` reads back."""
        return {
            "id": self.id,
            "started": self.started,
            "prompts": list(self.prompts),
            "calls": self.calls,
            "settings": dict(self.settings),
            **({"interrupted": True} if self.interrupted else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunRecord:
        """Return the record that `to_json` wrote."""
        return cls(
            id=str(data["id"]),
            started=str(data["started"]),
            prompts=tuple(str(p) for p in data["prompts"]),
            calls=int(data["calls"]),
            settings=dict(data["settings"]),
            interrupted=bool(data.get("interrupted", False)),
        )


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """The statistics of one Linear layer's input.

    Layers that always received the same tensor (q, k and v) share one object. ``input_id`` is the
    first of their names. K is ``in_features``.

    A *record* is one forward call, or one CFG branch of it when the batch could be split. Each
    record has, in the order seen: ``sigma`` float32 [N] (NaN when unknown), ``branch`` int8 [N]
    (0 cond, 1 uncond, -1 unknown), ``call_amax`` float32 [N] (max of |x| over every element), and
    ``run`` int32 [N], an index into the runs of the calibration.

    ``sum_squares`` float64 [K] is the sum of x^2 over ``tokens_used`` of the ``tokens``;
    ``channel_amax`` float32 [K] covers every token. Records with a NaN or an infinity stay in
    ``call_amax`` and are left out of everything else.

    ``rows`` [R, K] (dtype of the activation) is a uniform sample of the tokens. ``priorities``
    float64 [R] are in ascending order. Every token with a priority below ``row_limit`` is in the
    sample (infinity while no token was left out). ``row_run`` int32 [R] is the run of each row,
    an index into the runs of the calibration (-1: unknown). ``moments`` are the second moments,
    if they were collected; no token is both in them and among the rows.
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
        """Number of records whose activations contained a NaN or an infinity."""
        return int(np.count_nonzero(~np.isfinite(self.call_amax)))

    @property
    def amax(self) -> float | None:
        """Largest |x| over all finite records; None when there is none."""
        finite = self.call_amax[np.isfinite(self.call_amax)]
        return float(finite.max()) if finite.size else None

    @property
    def mean_square(self) -> np.ndarray:
        """E[x^2] per input channel, float32 [K]; zeros when no token was usable."""
        return (self.sum_squares / max(self.tokens_used, 1)).astype(np.float32)

    def percentile(self, percent: float) -> float | None:
        """Return a percentile of the per-record amax (not of elements).

        None when there are no finite records.
        """
        finite = self.call_amax[np.isfinite(self.call_amax)]
        return float(np.percentile(finite.astype(np.float64), percent)) if finite.size else None

    @property
    def spread(self) -> float:
        """Ratio of the largest to the smallest amax of a run; 1 for a single run."""
        peaks = [float(self.call_amax[self.run == run].max()) for run in np.unique(self.run)]
        positive = [peak for peak in peaks if peak > 0]
        return max(positive) / min(positive) if positive else 1.0

    def select(self, branch: int | None = None) -> np.ndarray:
        """Return a boolean mask [N] of the finite records, of one CFG branch if given."""
        mask = np.isfinite(self.call_amax)
        return mask if branch is None else mask & (self.branch == branch)


@dataclass(frozen=True)
class SigmaBin:
    """The records with ``low`` <= sigma <= ``high``: their number, largest and median amax."""

    low: float
    high: float
    calls: int
    amax: float
    median: float


def amax_by_sigma(
    layer: LayerStatistics, bins: int | Sequence[float] = 10, branch: int | None = None
) -> tuple[SigmaBin, ...]:
    """Return a layer's per-record amax in bins of sigma, lowest sigma first, without empty bins.

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
    """Return the largest |x| per CFG branch seen: keys ``cond``, ``uncond``, ``unknown``."""
    return {
        name: float(layer.call_amax[mask].max())
        for code, name in BRANCH_NAMES.items()
        if (mask := layer.select(code)).any()
    }


def order_runs(runs: Iterable[RunRecord]) -> tuple[RunRecord, ...]:
    """Return runs in the canonical order: by start time, then id."""
    return tuple(sorted(runs, key=lambda run: (run.started, run.id)))
