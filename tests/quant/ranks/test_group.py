"""Ranks meet, exchange words, and end together. Here each is a thread with a store of its own."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from nvfp4_foundry.quant import VERSION
from nvfp4_foundry.quant.errors import OtherRankError, RankError
from nvfp4_foundry.quant.ranks.group import RankGroup

from tests.helpers.on_ranks import KINDS, in_threads


def test_values_of_all_reach_all() -> None:
    def work(group: RankGroup) -> Any:
        first = group.by_first("name", lambda: f"by {group.rank}")
        return group.gather("reports", {"rank": group.rank, "text": "x" * 10**6 + "\u2028"}), first

    *answers, _ = in_threads(3, work)
    for values, first in answers:
        assert [value["rank"] for value in values] == [0, 1, 2] and first == "by 0"
        assert values[2]["text"].endswith("x\u2028")


def test_progress_of_all_is_shown_by_the_first() -> None:
    shown: list[tuple[int, int, str]] = []

    def work(group: RankGroup) -> None:
        advance = group.counted(lambda *step: shown.append((group.rank, *step)))
        advance(30, 90, "layer 1 of 1")
        group.gather("reports", None)

    in_threads(3, work)
    assert {step[0] for step in shown} == {0}
    assert shown[0][1] >= 30 and all(total == 90 for _, _, total, _ in shown)


def test_one_failure_is_reported_once_per_machine_and_stops_all() -> None:
    def work(group: RankGroup) -> None:
        if group.rank == 1:
            raise ValueError("layer blocks.3: not finite")
        advance = group.counted(None)
        while True:
            advance(0, 1, "layer")
            time.sleep(0.02)

    began = time.monotonic()
    zero, one, two, silent = in_threads(3, work, machines="aab")
    assert time.monotonic() - began < 10
    assert isinstance(one, ValueError)
    for other in (zero, two):
        assert isinstance(other, OtherRankError)
        assert str(other) == "rank 1: layer blocks.3: not finite"
    assert 2 not in silent and len(silent) == 1


def test_a_failure_ends_the_wait_of_the_others() -> None:
    def work(group: RankGroup) -> None:
        if group.rank == 2:
            raise OSError("disk full")
        group.gather("reports", None)

    zero, one, two, _ = in_threads(3, work)
    assert isinstance(two, OSError)
    assert str(zero) == str(one) == "rank 2: disk full"


def test_two_failures_are_one() -> None:
    barrier = threading.Barrier(2)

    def work(group: RankGroup) -> None:
        barrier.wait()
        raise ValueError(f"of {group.rank}")

    zero, one, silent = in_threads(2, work)
    kinds = {type(zero), type(one)}
    assert kinds == {ValueError, OtherRankError} and len(silent) == 1


def test_who_never_comes_is_named() -> None:
    zero, two, _ = in_threads(3, lambda group: None, absent=1, meet_seconds=1)
    assert {type(zero), type(two)} <= {RankError, OtherRankError}
    assert all("rank 1 did not start within 1 s" in str(error) for error in (zero, two))


def test_who_falls_silent_is_named() -> None:
    def work(group: RankGroup) -> None:
        if group.rank == 1:
            group._link.stop()  # as if the process had been killed
            raise SystemExit
        group.gather("reports", None)

    zero, _, two, _ = in_threads(3, work, silent_seconds=2)
    assert "rank 1 has not answered for 2 s" in str(zero)
    assert str(two).startswith("rank 0: rank 1 has not answered")


def test_other_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer(RankGroup):
        version = "99.0"

    monkeypatch.setitem(KINDS, 1, Newer)
    zero, one, _ = in_threads(2, lambda group: None)
    for error in (zero, one):
        assert f"different versions of NVFP4 Foundry ({VERSION}, 99.0)" in str(error)


def test_an_interrupt_of_one_stops_all() -> None:
    def work(group: RankGroup) -> None:
        group.gather("start", None)
        if group.rank == 0:
            return
        raise KeyboardInterrupt

    zero, one, _ = in_threads(2, work)
    assert isinstance(one, KeyboardInterrupt)
    assert str(zero) == "rank 1: interrupted"
