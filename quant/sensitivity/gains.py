"""Estimate the shifts of units that were not probed from those of units like them.

A unit's squared shift is the squared error of its own output times a gain. Units of one kind have
similar gains, and so do neighbouring blocks and the formats of one unit. So the logarithms of the
gains are modelled as a Gaussian process (kriging; Rasmussen and Williams 2006, chapter 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from .probe_record import ProbeRun

Floats = NDArray[np.float64]

# Variances of the parts of a log gain. They are round numbers near those of the greatest likelihood
# for the models in bench/. The first stands for the gain that all units share, which is unknown.
_OVERALL = 16.0
_KIND = 2.0
_NEAR_BLOCKS = 0.5
_BLOCK = 0.1
_KIND_IN_NEAR_BLOCKS = 2.0
_UNIT = 0.06
_KIND_AND_FORMAT = 0.08
_OWN = 0.03
# A shift differs a little between noises, and short samplings stand for whole ones.
_MEASUREMENT = 1e-3
# Gains change over about this share of the blocks.
_REACH = 1 / 6
# A shift of zero has no logarithm.
_LEAST_SQUARE = 1e-14


@dataclass(frozen=True)
class RunTraits:
    """What a run tells about its gain before it is measured.

    ``kind`` is the name of the unit without numbers, ``container`` and ``block`` are its place
    (None: outside of the blocks), ``squared_error`` that of its own output, relative.
    """

    run: ProbeRun
    kind: str
    container: str | None
    block: int | None
    squared_error: float


class Estimate:
    """Logarithms of the squared shifts of N runs, as a normal distribution.

    ``mean`` is float64 [N].
    """

    def __init__(self, mean: Floats, prior: Floats, explained: Floats, scale: float = 1.0) -> None:
        """Take the prior covariance [N, N], and the root [M, N] of what M known runs explain.

        ``scale`` multiplies the covariance.
        """
        self.mean = mean
        self._prior, self._explained, self._scale = prior, explained, scale

    def covariance(self, runs: NDArray[np.int64]) -> Floats:
        """Return the covariances [..., K, K] of runs, given by their numbers [..., K]."""
        prior = self._prior[runs[..., :, None], runs[..., None, :]]
        explained = self._explained[:, runs]
        return self._scale * (prior - np.einsum("m...a,m...b->...ab", explained, explained))


class GainModel:
    """The prior of the gains of N runs."""

    def __init__(self, traits: Sequence[RunTraits]) -> None:
        """Compute the prior covariance of every two runs. All squared errors must be positive."""
        self.runs = [t.run for t in traits]
        self._index = {run: number for number, run in enumerate(self.runs)}
        self._log_errors = np.log([t.squared_error for t in traits])
        self._prior = _covariance(traits)

    def estimate(self, known: Mapping[ProbeRun, float]) -> Estimate:
        """Return the distribution of all squared shifts, given those of the ``known`` runs."""
        rows = [self._index[run] for run in known]
        if not rows:
            none = np.zeros((0, len(self.runs)))
            return Estimate(self._log_errors.copy(), self._prior, none)
        squares = np.array([known[self.runs[row]] for row in rows])
        observed = np.log(np.maximum(squares, _LEAST_SQUARE)) - self._log_errors[rows]
        own = self._prior[np.ix_(rows, rows)] + _MEASUREMENT * np.eye(len(rows))
        root = np.linalg.cholesky(own)
        explained = solve_triangular(root, self._prior[rows], lower=True)
        # By how many standard deviations each run differed from what was expected of it.
        surprises = solve_triangular(root, observed, lower=True)
        scale = max(1.0, float(surprises @ surprises) / len(rows))
        mean = surprises @ explained + self._log_errors
        return Estimate(mean, self._prior, explained, scale)


def _covariance(traits: Sequence[RunTraits]) -> Floats:
    kind = _equal([t.kind for t in traits])
    block = np.array([np.nan if t.block is None else t.block for t in traits], np.float64)
    container = _equal([t.container for t in traits])
    with np.errstate(invalid="ignore"):
        distance = np.abs(block[:, None] - block)
    outside = np.isnan(block)
    count = 1.0 if outside.all() else float(np.nanmax(block)) + 1.0
    near = container * np.exp(-0.5 * (distance / max(1.0, _REACH * count)) ** 2)
    # Layers outside of the blocks have no neighbours.
    near = np.where(np.isnan(distance), np.outer(outside, outside) * container, near)
    one_block = container * (distance == 0)
    formats = _equal([t.run[0] for t in traits])
    return (
        _OVERALL
        + _KIND * kind
        + _NEAR_BLOCKS * near
        + _BLOCK * one_block
        + _KIND_IN_NEAR_BLOCKS * kind * near
        + _UNIT * _equal([t.run[1] for t in traits])
        + _KIND_AND_FORMAT * kind * formats
        + _OWN * np.eye(len(traits))
    )


def _equal(values: Sequence[str | None]) -> Floats:
    """Return [N, N]: 1 where two values are equal."""
    _, numbers = np.unique([value or "" for value in values], return_inverse=True)
    return (numbers[:, None] == numbers).astype(np.float64)
