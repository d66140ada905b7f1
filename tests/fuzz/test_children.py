"""The processes of a long run: nothing is lost when one dies, and every input counts once."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from random import Random

import pytest

from . import children
from .children import Batch, Result, run_batches
from .parsers import FUZZERS
from .specimens import Specimens

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fuzzers are replaced by fork")
NAME = "rules"
SEEDS = [str(number) for number in range(20)]


def run(valid: Specimens, batches: int = 1, processes: int = 1) -> list[Result]:
    return list(run_batches(iter([Batch(NAME, SEEDS)] * batches), valid, processes))


@pytest.fixture
def valid(tmp_path: Path) -> Specimens:
    """No files: the fuzzers here read none."""
    none = tmp_path / "none"
    return Specimens(tmp_path, none, none, none, none, none, none, none, ())


def fuzzer(monkeypatch: pytest.MonkeyPatch, at: str, act: object) -> None:
    """Put a fuzzer in place that acts on one seed, and takes some time for each."""

    def fuzz(random: Random, *_: object) -> None:
        if random.random() == Random(at).random():
            act()  # type: ignore[operator]

    monkeypatch.setitem(FUZZERS, NAME, (fuzz, 1))


def test_every_input_of_every_batch_counts_once(
    valid: Specimens, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise KeyError("oops")

    fuzzer(monkeypatch, "7", fail)
    results = run(valid, batches=5, processes=3)
    assert [result.inputs for result in results] == [20] * 5
    assert all(result.seconds > 0 for result in results)
    for result in results:
        ((seed, problem),) = result.problems
        assert seed == "7" and problem.startswith("unnamed: KeyError")


def test_a_process_that_dies_counts_for_its_input(
    valid: Specimens, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuzzer(monkeypatch, "7", lambda: os._exit(3))
    results = run(valid)
    assert [result.inputs for result in results] == [8, 12]
    assert [p for r in results for p in r.problems] == [("7", "unnamed: the process died")]


def test_a_process_that_hangs_is_ended(valid: Specimens, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzzer(monkeypatch, "19", lambda: time.sleep(600))
    monkeypatch.setattr(children, "_SILENT", 1.5)
    (result,) = run(valid)
    assert result.inputs == 20 and [seed for seed, _ in result.problems] == ["19"]
    assert result.problems[0][1].startswith("time: hangs")
