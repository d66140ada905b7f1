"""Calibrations from several machines, merged, equal one calibration of all their runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    CalibrationStatistics,
    CollectorSettings,
    RunAccumulator,
    load_statistics,
    merge_all,
    save_statistics,
)
from nvfp4_foundry.quant.fingerprint import ModelFingerprint

from tests.helpers.command_line import run
from tests.helpers.moments_by_hand import BIG
from tests.quant.calibration.test_accumulator import ARRAYS, EXACT, finished, sample

RUNS = 5
#: The runs of three machines, by number.
MACHINES = ((3, 0), (1,), (4, 2))
SETTINGS = [
    CollectorSettings(20),
    CollectorSettings(256, memory_budget_bytes=20_000),
    CollectorSettings(8, moments_budget_bytes=BIG, mean_square_tokens=7),
]


def calibrated(
    block: torch.nn.Module,
    settings: CollectorSettings,
    fingerprint: ModelFingerprint,
    numbers: tuple[int, ...],
) -> CalibrationStatistics:
    """Observe these runs. What a run samples, and when it began, depends on its number alone."""
    runs = RunAccumulator(settings, fingerprint)
    for number in numbers:
        run_id = uuid.UUID(int=number + 1).hex
        with runs.observe(block, [f"prompt {number}"], {"steps": 4}, run_id=run_id) as collector:
            sample(block, collector, number)
    statistics = runs.statistics()
    started = {r.id: f"2026-01-01T00:00:{int(r.id, 16):02d}+00:00" for r in statistics.runs}
    return replace(
        statistics, runs=tuple(replace(r, started=started[r.id]) for r in statistics.runs)
    )


def assert_equal(found: CalibrationStatistics, wanted: CalibrationStatistics) -> None:
    """Compare everything but Hessians, which each machine collects on a schedule of its own."""
    assert found.runs == wanted.runs
    assert found.fingerprint == wanted.fingerprint
    assert found.rows_per_layer == wanted.rows_per_layer
    assert found.layers.keys() == wanted.layers.keys()
    assert len(found.inputs) == len(wanted.inputs)
    for name, ours in found.layers.items():
        theirs = wanted.layers[name]
        assert [getattr(ours, n) for n in EXACT] == [getattr(theirs, n) for n in EXACT]
        for array in ARRAYS:
            np.testing.assert_array_equal(getattr(ours, array), getattr(theirs, array), array)
        assert torch.equal(ours.rows, theirs.rows)
        np.testing.assert_allclose(ours.sum_squares, theirs.sum_squares, rtol=1e-14)


@pytest.mark.parametrize("settings", SETTINGS, ids=["few rows", "small budget", "Hessians"])
def test_merged_in_any_order_they_equal_one_long_calibration(
    tiny_block: Callable,
    fingerprint: ModelFingerprint,
    settings: CollectorSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    block = tiny_block()
    # canonical order is by start; the calls of a run keep theirs
    long = calibrated(block, settings, fingerprint, tuple(range(RUNS)))
    files = []
    for index, numbers in enumerate(MACHINES):
        part = calibrated(block, settings, fingerprint, numbers)
        files.append(tmp_path / f"machine{index}.safetensors")
        save_statistics(part, files[-1])
    for order in permutations(files):
        target = tmp_path / "merged.safetensors"
        code, _, error = run(capsys, "stats", "merge", *order, "--output", target, "--overwrite")
        assert code == 0, error
        assert_equal(load_statistics(target), long)


def test_hessians_of_all_machines_are_one_mean(
    tiny_block: Callable, fingerprint: ModelFingerprint, tmp_path: Path
) -> None:
    block = tiny_block()
    settings = CollectorSettings(8, moments_budget_bytes=BIG)
    parts = []
    for index, numbers in enumerate(MACHINES):
        save_statistics(
            calibrated(block, settings, fingerprint, numbers), tmp_path / f"{index}.safetensors"
        )
        parts.append(load_statistics(tmp_path / f"{index}.safetensors"))
    expected = None
    for order in permutations(parts):
        merged = merge_all(order).layers["o"].moments
        assert merged is not None
        own = [m for part in parts if (m := part.layers["o"].moments) is not None]
        assert len(own) == 3 and merged.tokens == sum(m.tokens for m in own)
        mean = sum(m.load().hessian.double() * m.tokens for m in own) / merged.tokens
        torch.testing.assert_close(merged.load().hessian.double(), mean, rtol=1e-5, atol=1e-7)
        expected = merged.load().hessian if expected is None else expected
        assert torch.equal(merged.load().hessian, expected)


def test_a_run_that_two_machines_send_is_refused(
    tiny_block: Callable,
    fingerprint: ModelFingerprint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    block = tiny_block()
    runs = RunAccumulator(CollectorSettings(8), fingerprint)
    finished(runs, block, 0)
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_statistics(runs.statistics(), first)
    finished(runs, block, 1)
    save_statistics(runs.statistics(), second)  # holds the first run too
    code, _, error = run(capsys, "stats", "merge", first, second, "--output", tmp_path / "out")
    assert code == 1 and "would count twice" in error and runs.statistics().runs[0].id in error
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.name, second.name]
