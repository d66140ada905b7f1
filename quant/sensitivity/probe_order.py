"""Choose what to probe next: the unit whose estimated shift may spoil the choice of formats most.

The price of a byte is the error that the best mix saves with one more byte (the Lagrange
multiplier of the size). At this price, each unit chooses its format alone. An estimate is harmful
only as far as it makes the unit choose another format than its true shift would. The expected harm
is the expected value of perfect information (Raiffa and Schlaifer 1961).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .gains import Estimate, Floats, GainModel, RunTraits
from .probe_record import ProbeRun

#: A probe ends once the rest is expected to lower the squared error of a mix by no more than this.
STOP_BELOW = 0.03
# Sizes between the smallest and the largest mix. Mixes of these sizes are shown beside the chosen
# one. Their error may be twice as doubtful.
_OTHER_SIZES, _OTHER_DOUBT = (0.25, 0.5, 0.75), 0.5
_DRAWS = 64
# Beyond exp(6), the mean of a log-normal distribution says nothing about the likely values.
_MOST_LOG = 6.0
_LEAST_VARIANCE = 1e-9
# Relative squared error per byte.
_LEAST_PRICE = 1e-24


@dataclass(frozen=True)
class _Loss:
    """Expected harm at one size, relative to the squared error, and the share of each unit."""

    total: float
    by_unit: Floats


class ProbeOrder:
    """Decides about the next run of a probe, from all that is known so far."""

    def __init__(
        self,
        traits: Sequence[RunTraits],
        stored: Mapping[ProbeRun, int],
        unquantized: Mapping[str, int],
        size: int | None = None,
    ) -> None:
        """Take the runs and the sizes.

        Args:
            traits: the runs to choose from; their squared errors must be positive.
            stored: bytes of each run's unit in its format.
            unquantized: bytes of each unit as it is, where it moves nothing.
            size: bytes of all units in the plan. None: mixes of several sizes count alike.
        """
        self._model = GainModel(traits)
        self._number = number = {run: i for i, run in enumerate(self._model.runs)}
        by_unit: dict[str, list[int]] = {}
        for run, i in number.items():
            by_unit.setdefault(run[1], []).append(i)
        formats = max(map(len, by_unit.values()), default=0)
        # The runs of each unit [U, F]. A format that a unit cannot take has -1.
        self._rows = np.full((len(by_unit), formats), -1, np.int64)
        # Bytes [U, F + 1]. The last choice of each unit is to leave it as it is.
        self._bytes = np.full((len(by_unit), formats + 1), np.inf)
        for place, (unit, rows) in enumerate(by_unit.items()):
            self._rows[place, : len(rows)] = rows
            self._bytes[place, : len(rows)] = [stored[self._model.runs[row]] for row in rows]
            self._bytes[place, -1] = unquantized[unit]
        self._sizes = self._weighed_sizes(size)

    def _weighed_sizes(self, size: int | None) -> list[tuple[float, float]]:
        """Return sizes of mixes, and how much the doubt about each counts."""
        least = float(self._bytes.min(axis=1).sum())
        quantized = np.where(self._rows < 0, 0.0, self._bytes[:, :-1])
        most = float(quantized.max(axis=1, initial=0.0).sum())
        weight = 1.0 if size is None else _OTHER_DOUBT
        others = [(least + share * (most - least), weight) for share in _OTHER_SIZES]
        return others if size is None else [(max(float(size), least), 1.0), *others]

    @property
    def runs(self) -> Collection[ProbeRun]:
        """The runs to choose from."""
        return self._number

    def next_run(self, known: Mapping[ProbeRun, float], stop_below: float) -> ProbeRun | None:
        """Return the most useful run; None if the rest promises too little.

        Args:
            known: squared shifts of the runs so far; NaN where the result was not finite.
            stop_below: the expected relative gain in the squared error that is worth no run.
        """
        if len(known) >= len(self._model.runs):
            return None
        estimate = self._estimate(known)
        loss = self._loss(estimate, known)
        if loss.total < stop_below:
            return None
        for place in np.argsort(-loss.by_unit, kind="stable"):
            own = self._rows[place][self._rows[place] >= 0]
            rows = own[[self._model.runs[row] not in known for row in own]]
            if len(rows):
                spread = np.diag(estimate.covariance(rows)) * np.exp(2.0 * estimate.mean[rows])
                return self._model.runs[rows[int(np.argmax(spread))]]
        return None

    def doubt(self, known: Mapping[ProbeRun, float]) -> float:
        """Return by how much more runs may lower the squared error of a mix, relative to it."""
        return self._loss(self._estimate(known), known).total

    def completed(self, known: Mapping[ProbeRun, float]) -> dict[ProbeRun, float]:
        """Return the squared shifts of all runs: the known ones, and estimates of the others.

        Without any finite shift, there is nothing to estimate from.
        """
        if not any(math.isfinite(square) for square in known.values()):
            return dict(known)
        mean = self._estimate(known).mean
        runs = enumerate(self._model.runs)
        return {run: known[run] if run in known else math.exp(mean[i]) for i, run in runs}

    def _estimate(self, known: Mapping[ProbeRun, float]) -> Estimate:
        finite = {run: square for run, square in known.items() if math.isfinite(square)}
        return self._model.estimate(finite)

    def _loss(self, estimate: Estimate, known: Mapping[ProbeRun, float]) -> _Loss:
        """Return the expected harm at the size where it is worst.

        A unit with a shift that is not finite does no harm: no other run tells more about it.
        """
        takes = self._rows >= 0
        both = takes[:, :, None] & takes[:, None, :]
        covariance = np.where(both, estimate.covariance(self._rows), 0.0)
        root = np.linalg.cholesky(covariance + _LEAST_VARIANCE * np.eye(takes.shape[1]))
        # The same random numbers each time, so that a probe that goes on decides as before.
        normal = np.random.default_rng(0).standard_normal((_DRAWS, takes.shape[1]))
        departures = np.minimum(np.einsum("uab,db->dua", root, normal), _MOST_LOG)
        lost = [self._number[run] for run, square in known.items() if not math.isfinite(square)]
        departures[:, np.isin(self._rows, lost).any(axis=1)] = 0.0
        mean = np.where(takes, estimate.mean[self._rows], 0.0) if takes.size else np.zeros((0, 0))
        costs, draws = np.zeros(self._bytes.shape), np.zeros((_DRAWS, *self._bytes.shape))
        costs[:, :-1], draws[:, :, :-1] = np.exp(mean), np.exp(mean + departures)
        losses = [self._loss_at(size, costs, draws, weight) for size, weight in self._sizes]
        return max(losses, key=lambda loss: loss.total)

    def _loss_at(self, size: float, costs: Floats, draws: Floats, weight: float) -> _Loss:
        payment = self._price(costs, size) * self._bytes
        units = np.arange(len(costs))
        chosen = np.argmin(costs + payment, axis=1)
        total = float(costs[units, chosen].sum())
        paid = draws + payment
        by_unit = (paid[:, units, chosen] - paid.min(axis=2)).mean(axis=0)
        return _Loss(weight * float(by_unit.sum()) / max(total, 1e-300), by_unit)

    def _price(self, costs: Floats, size: float) -> float:
        """Return about the least price of a byte at which all units together fit a size."""
        units = np.arange(len(costs))

        def fits(price: float) -> bool:
            chosen = np.argmin(costs + price * self._bytes, axis=1)
            return float(self._bytes[units, chosen].sum()) <= size

        # No price is zero, because a format that a unit cannot take has infinitely many bytes.
        low = high = _LEAST_PRICE
        while not fits(high) and high < 1.0:
            low, high = high, high * 4.0
        for _ in range(30):
            middle = (low + high) / 2.0
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high
