"""Tell from the runs of a calibration whether more prompts would still change it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

import numpy as np

from .records import LayerStatistics
from .statistics import CalibrationStatistics

#: An input's amax grows if a run raises it by more than this share. Static scales have a headroom
#: of 4, so smaller growth is far inside it.
GROWTH = 0.05
#: The share of the inputs that may grow in a run while the calibration still counts as complete.
_FEW = 0.05
#: So many runs must there be, and so many of the latest must pass.
_FEWEST_RUNS, _LATEST = 4, 2
_PERCENT = 99.0
# An estimate further ahead than this would be a guess.
_MOST_MORE = 32


@dataclass(frozen=True)
class RunGrowth:
    """What one run changed: how many inputs grew, and the typical change of their percentile.

    ``growing``: the layers whose amax it raised by more than `GROWTH`, layers of one input
    included. ``inputs``: the number of inputs that grew. ``shift``: the median over the inputs of
    the relative change of the 99th percentile of their amax by call.
    """

    growing: tuple[str, ...]
    inputs: int
    shift: float


@dataclass(frozen=True)
class Convergence:
    """How the ranges of the inputs changed from run to run, see `assess_convergence`."""

    runs: int
    inputs: int
    latest: tuple[RunGrowth, ...]

    @property
    def growing(self) -> tuple[str, ...]:
        """The layers whose amax still grew in the last run; none are known after one."""
        return self.latest[-1].growing if self.latest else ()

    @property
    def is_complete(self) -> bool:
        """Whether more runs like these would change little."""
        return self.runs >= _FEWEST_RUNS and all(
            change.inputs <= self._allowed and change.shift <= GROWTH
            for change in self.latest[-_LATEST:]
        )

    @property
    def more_runs(self) -> int:
        """About how many more runs it takes; 0 if complete.

        The chance that the next value is the largest so far falls as 1 / runs. So the number of
        inputs that grow is expected to fall likewise.
        """
        if self.is_complete:
            return 0
        grew = [change.inputs for change in self.latest[-_LATEST:]]
        share = sum(grew) / max(1, len(grew)) / max(1, self._allowed)
        wanted = max(_FEWEST_RUNS, self.runs + 1, ceil(self.runs * share))
        return min(_MOST_MORE, wanted - self.runs)

    @property
    def _allowed(self) -> int:
        return max(1, int(_FEW * self.inputs))

    def describe(self) -> str:
        """Return it as a sentence; empty without runs."""
        if not self.runs or not self.inputs:
            return ""
        if self.runs == 1:
            return f"one run so far: sample at least {_FEWEST_RUNS - 1} more prompts"
        if self.is_complete:
            most = max(change.inputs for change in self.latest)
            return (
                f"the last {_LATEST} runs raised the amax of at most {most} of {self.inputs} "
                f"inputs by more than {GROWTH:.0%}: more prompts would change little"
            )
        return (
            f"the last run raised the amax of {self.latest[-1].inputs} of {self.inputs} inputs by "
            f"more than {GROWTH:.0%}: sample about {_prompts(self.more_runs)}"
        )


def assess_convergence(statistics: CalibrationStatistics) -> Convergence:
    """Return how much the latest runs of a calibration changed it.

    The rule: more prompts would change little if there are at least 4 runs, and in each of the last
    two at most 5% of the inputs (at least one is always allowed) had their amax raised by more than
    5%, while the 99th percentile of the amax by call moved by at most 5% in the typical (median)
    input. Runs count in the order in which they began. Imported records without a run of their own
    count as one run.
    """
    count = len(statistics.runs)
    histories = {i: _history(layer, count) for i, layer in statistics.inputs.items()}
    latest = tuple(
        _growth(statistics, histories, run) for run in range(max(1, count - _LATEST), count)
    )
    return Convergence(count, len(histories), latest)


def _history(layer: LayerStatistics, runs: int) -> np.ndarray:
    """Return amax and 99th percentile over all runs up to each one: float64 [2, runs].

    Only the last few are computed, the others are NaN, and so are those without a finite record.
    """
    finite = np.isfinite(layer.call_amax)
    run, amax = layer.run[finite], layer.call_amax[finite].astype(np.float64)
    history = np.full((2, runs), np.nan)
    for index in range(max(0, runs - _LATEST - 1), runs):
        seen = amax[run <= index]
        if seen.size:
            history[:, index] = seen.max(), np.percentile(seen, _PERCENT)
    return history


def _growth(
    statistics: CalibrationStatistics, histories: dict[str, np.ndarray], run: int
) -> RunGrowth:
    changes = {i: _change(history[:, run - 1], history[:, run]) for i, history in histories.items()}
    grew = {i for i, change in changes.items() if change[0] > GROWTH}
    names = tuple(n for n, layer in statistics.layers.items() if layer.input_id in grew)
    shift = float(np.median([abs(change[1]) for change in changes.values()] or [0.0]))
    return RunGrowth(names, len(grew), shift)


def _change(before: Iterable[float], after: Iterable[float]) -> tuple[float, float]:
    """Return the relative change of both values; 1 for an input that was first seen in this run."""
    amax, percentile = (_ratio(a, b) for a, b in zip(before, after, strict=True))
    return amax, percentile


def _ratio(before: float, after: float) -> float:
    if np.isnan(after) or after == before:
        return 0.0
    return float(after / before - 1.0) if before > 0 else 1.0


def _prompts(count: int) -> str:
    return f"{count} more prompt{'s' if count != 1 else ''}"
