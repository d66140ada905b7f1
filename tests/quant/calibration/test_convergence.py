"""When more prompts would change little, on made-up ranges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    CalibrationStatistics,
    LayerStatistics,
    RunRecord,
    assess_convergence,
)
from nvfp4_foundry.quant.fingerprint import ModelFingerprint


def layer(name: str, amax_by_run: Sequence[Sequence[float]]) -> LayerStatistics:
    """Return an input with these records in each run."""
    amax = np.array([value for run in amax_by_run for value in run], np.float32)
    run = np.array([i for i, values in enumerate(amax_by_run) for _ in values], np.int32)
    count, empty = len(amax), np.zeros(0)
    return LayerStatistics(
        name, 4, count, count, count, np.zeros(count, np.float32), np.zeros(count, np.int8), amax,
        run, np.zeros(4), np.zeros(4, np.float32), torch.empty(0, 4), empty, np.inf,
        empty.astype(np.int32),
    )  # fmt: skip


def made_up(*peaks: Sequence[float]) -> CalibrationStatistics:
    """Return a calibration with one input per list: the largest value of each run, of 8 calls.

    The other seven are 1, so that the percentile moves with the peak only.
    """
    runs = len(peaks[0])
    layers = {
        f"blocks.{i}.o": layer(f"blocks.{i}.o", [[1.0] * 7 + [peak] for peak in values])
        for i, values in enumerate(peaks)
    }
    records = [RunRecord(f"{i:032x}", f"2026-01-01T00:00:{i:02d}", (), 8, {}) for i in range(runs)]
    return CalibrationStatistics(layers, ModelFingerprint({}, {}), tuple(records), 8, ("test",))


STEADY = (10.0, 10.0, 10.0, 10.0)


def test_ranges_that_no_longer_move_are_enough_after_four_runs() -> None:
    found = assess_convergence(made_up(*[STEADY] * 40))
    assert found.is_complete and found.more_runs == 0 and found.growing == ()
    assert found.describe() == (
        "the last 2 runs raised the amax of at most 0 of 40 inputs by more than 5%: more prompts "
        "would change little"
    )
    fewer = assess_convergence(made_up(*[STEADY[:3]] * 40))
    assert not fewer.is_complete and fewer.more_runs == 1


def test_one_run_says_nothing_yet() -> None:
    found = assess_convergence(made_up([10.0]))
    assert not found.is_complete and found.growing == ()
    assert found.describe() == "one run so far: sample at least 3 more prompts"
    assert assess_convergence(made_up([])).describe() == ""


def test_growth_below_five_percent_is_none() -> None:
    assert assess_convergence(made_up(*[(10.0, 10.4, 10.8, 11.2)] * 40)).is_complete
    grows = assess_convergence(made_up(*[(10.0, 10.0, 10.0, 10.6)] * 40))
    assert not grows.is_complete and len(grows.growing) == 40


@pytest.mark.parametrize(("growing", "complete"), [(2, True), (3, False)])
def test_a_twentieth_of_the_inputs_may_grow(growing: int, complete: bool) -> None:
    peaks = [(10.0, 10.0, 10.0, 20.0)] * growing + [STEADY] * (40 - growing)
    found = assess_convergence(made_up(*peaks))
    assert found.is_complete is complete
    assert found.growing == tuple(f"blocks.{i}.o" for i in range(growing))


def test_the_run_before_the_last_counts_too() -> None:
    peaks = [(10.0, 10.0, 20.0, 20.0)] * 10 + [STEADY] * 30
    found = assess_convergence(made_up(*peaks))
    assert not found.is_complete and found.growing == ()
    assert assess_convergence(made_up(*[(*p, p[-1]) for p in peaks])).is_complete


def test_a_percentile_that_still_moves_is_not_enough() -> None:
    """A single outlier in the first run hides that everything else grows."""
    values = [[100.0, *[1.0] * 7], *[[10.0**n] * 80 for n in range(3)]]
    statistics = made_up(*[STEADY] * 3)
    layers = {name: layer(name, values) for name in statistics.layers}
    moving = CalibrationStatistics(
        layers, statistics.fingerprint, statistics.runs, 8, statistics.tool_versions
    )
    found = assess_convergence(moving)
    assert found.growing == () and not found.is_complete


def test_the_estimate_follows_the_share_that_grows() -> None:
    """Records are broken ever more rarely, as 1 / runs: 4 of 40 in run 4 becomes 2 in run 8."""
    peaks = [(10.0, 10.0, 20.0, 40.0)] * 4 + [STEADY] * 36
    found = assess_convergence(made_up(*peaks))
    assert found.more_runs == 4
    assert found.describe() == (
        "the last run raised the amax of 4 of 40 inputs by more than 5%: sample about 4 more "
        "prompts"
    )
    assert assess_convergence(made_up(*[(10.0, 20.0, 40.0, 80.0)] * 400)).more_runs == 32


def test_inputs_seen_late_and_values_that_are_not_finite() -> None:
    late = made_up((np.nan, np.nan, np.nan, 10.0), *[STEADY] * 4)
    layers = dict(late.layers)
    layers["blocks.0.o"] = layer("blocks.0.o", [[], [np.inf], [], [10.0]])
    layers["zeros"] = layer("zeros", [[0.0]] * 4)
    found = assess_convergence(
        CalibrationStatistics(layers, late.fingerprint, late.runs, 8, late.tool_versions)
    )
    assert found.growing == ("blocks.0.o",)
