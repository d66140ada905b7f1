"""The largest input of layers over sigma, for each CFG branch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ...calibration import CalibrationStatistics, LayerStatistics
from ...calibration.records import BRANCH_NAMES
from .numbers import rounded, rounded_all

#: Points of a curve. Calibrations with more distinct sigmas get bins of equal counts.
MOST_POINTS = 16


def inputs_of(statistics: CalibrationStatistics, names: Iterable[str]) -> dict[str, Any]:
    """Return the ``inputs`` part of a view: layers that share an input share a curve."""
    curves: list[dict[str, Any]] = []
    known: dict[str, int] = {}
    of = []
    for name in names:
        layer = statistics.layers.get(name)
        if layer is None:
            of.append(-1)
            continue
        if layer.input_id not in known:
            curve = amax_curve(layer)
            known[layer.input_id] = len(curves) if curve else -1
            curves += [curve] if curve else []
        of.append(known[layer.input_id])
    return {"of": of, "curves": curves}


def amax_curve(layer: LayerStatistics) -> dict[str, Any]:
    """Return ``sigma``, lowest first, and the largest |x| at it for each CFG branch seen.

    Empty if no finite record has a sigma.
    """
    mask = layer.select() & np.isfinite(layer.sigma)
    if not mask.any():
        return {}
    sigma = layer.sigma[mask].astype(np.float64)
    amax, branch = layer.call_amax[mask].astype(np.float64), layer.branch[mask]
    edges = _edges(sigma)
    at = np.searchsorted(edges, sigma, side="right") - 1
    means = np.bincount(at, sigma, len(edges)) / np.maximum(
        np.bincount(at, minlength=len(edges)), 1
    )
    curve: dict[str, Any] = {"sigma": rounded_all(means.tolist())}
    for code, name in BRANCH_NAMES.items():
        chosen = branch == code
        if chosen.any():
            largest = np.full(len(edges), -np.inf)  # rounded to None where there are no records
            np.maximum.at(largest, at[chosen], amax[chosen])
            curve[name] = [rounded(value) for value in largest.tolist()]
    return curve


def _edges(sigma: np.ndarray) -> np.ndarray:
    """Return the lower edges of the bins: every distinct sigma, or of bins of equal counts."""
    distinct = np.unique(sigma)
    if len(distinct) <= MOST_POINTS:
        return distinct
    starts = np.linspace(0, sigma.size, MOST_POINTS, endpoint=False).astype(int)
    return np.unique(np.sort(sigma)[starts])
