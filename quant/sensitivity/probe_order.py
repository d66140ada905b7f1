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
STOP_BELOW = 0.05
# Sizes between the smallest and the largest mix. Mixes of these sizes are shown beside the chosen
# one. Their error may be twice as doubtful.
_OTHER_SIZES, _OTHER_DOUBT = (0.25, 0.5, 0.75), 0.5
_DRAWS = 64
# Beyond exp(6), the mean of a log-normal distribution says nothing about the likely values.
_MOST_LOG = 6.0
_LEAST_VARIANCE = 1e-9


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
        self._units = list(dict.fromkeys(unit for _, unit in number))
        self._rows = [[i for run, i in number.items() if run[1] == unit] for unit in self._units]
        self._formats = max(map(len, self._rows), default=0)
        # The last choice of each unit is to leave it as it is.
        self._bytes = np.full((len(self._units), self._formats + 1), np.inf)
        for place, (unit, rows) in enumerate(zip(self._units, self._rows, strict=True)):
            for column, row in enumerate(rows):
                self._bytes[place, column] = stored[self._model.runs[row]]
            self._bytes[place, -1] = unquantized[unit]
        self._sizes = self._weighed_sizes(size)

    def _weighed_sizes(self, size: int | None) -> list[tuple[float, float]]:
        """Return sizes of mixes, and how much the doubt about each counts."""
        least = float(self._bytes.min(axis=1).sum())
        quantized = np.where(np.isinf(self._bytes[:, :-1]), -np.inf, self._bytes[:, :-1])
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
        loss = self._loss(estimate)
        if loss.total < stop_below:
            return None
        for place in np.argsort(-loss.by_unit, kind="stable"):
            rows = [row for row in self._rows[place] if self._model.runs[row] not in known]
            if rows:
                spread = np.diag(estimate.covariance(rows)) * np.exp(2.0 * estimate.mean[rows])
                return self._model.runs[rows[int(np.argmax(spread))]]
        return None

    def doubt(self, known: Mapping[ProbeRun, float]) -> float:
        """Return by how much more runs may lower the squared error of a mix, relative to it."""
        return self._loss(self._estimate(known)).total

    def completed(self, known: Mapping[ProbeRun, float]) -> dict[ProbeRun, float]:
        """Return the squared shifts of all runs: the known ones, and estimates of the others."""
        mean = self._estimate(known).mean
        runs = enumerate(self._model.runs)
        return {run: known[run] if run in known else math.exp(mean[i]) for i, run in runs}

    def _estimate(self, known: Mapping[ProbeRun, float]) -> Estimate:
        finite = {run: square for run, square in known.items() if math.isfinite(square)}
        return self._model.estimate(finite)

    def _loss(self, estimate: Estimate) -> _Loss:
        """Return the expected harm at the size where it is worst."""
        costs = np.zeros_like(self._bytes)
        draws = np.zeros((_DRAWS, *self._bytes.shape))
        # The same random numbers each time, so that a probe that goes on decides as before.
        normal = np.random.default_rng(0).standard_normal((_DRAWS, self._formats))
        for place, rows in enumerate(self._rows):
            mean, count = estimate.mean[rows], len(rows)
            spread = estimate.covariance(rows) + _LEAST_VARIANCE * np.eye(count)
            drawn = mean + np.minimum(normal[:, :count] @ np.linalg.cholesky(spread).T, _MOST_LOG)
            costs[place, :count] = np.exp(mean)
            draws[:, place, :count] = np.exp(drawn)
        losses = [self._loss_at(size, costs, draws, weight) for size, weight in self._sizes]
        return max(losses, key=lambda loss: loss.total)

    def _loss_at(self, size: float, costs: Floats, draws: Floats, weight: float) -> _Loss:
        price = self._price(costs, size)
        units = np.arange(len(costs))
        # A format that a unit cannot take has no size, so at no price it would be chosen.
        payment = np.where(np.isinf(self._bytes), np.inf, price * np.nan_to_num(self._bytes))
        chosen = np.argmin(costs + payment, axis=1)
        total = float(costs[units, chosen].sum())
        regret = (draws + payment)[:, units, chosen] - (draws + payment).min(axis=2)
        by_unit = regret.mean(axis=0)
        return _Loss(weight * float(by_unit.sum()) / max(total, 1e-300), by_unit)

    def _price(self, costs: Floats, size: float) -> float:
        """Return the least price of a byte at which all units together fit a size."""
        units = np.arange(len(costs))

        def fits(price: float) -> bool:
            paid = np.where(np.isinf(self._bytes), np.inf, price * np.nan_to_num(self._bytes))
            return float(self._bytes[units, np.argmin(costs + paid, axis=1)].sum()) <= size

        low, high = 0.0, 1e-20
        while not fits(high) and high < 1e12:
            low, high = high, high * 4.0
        for _ in range(50):
            middle = (low + high) / 2.0
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high
