"""How long work still takes, and how it is said."""

from __future__ import annotations

import pytest
from nvfp4_foundry.quant.progress import (
    RemainingTime,
    Throttle,
    format_seconds,
    numbered,
    progress_line,
)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def left_after(durations: list[float], total: int = 100, amount: int = 1) -> list[float | None]:
    """Return what is left after each step of ``amount``, which took so many seconds."""
    clock = Clock()
    remaining, found = RemainingTime(clock), []
    for number, seconds in enumerate(durations, 1):
        clock.now += seconds
        found.append(remaining.update(number * amount, total))
    return found


def test_the_time_left_is_known_after_a_few_steps_and_seconds() -> None:
    assert left_after([0.1] * 20) == [None] * 20  # two seconds
    assert left_after([5.0, 5.0, 5.0]) == [None] * 3  # three steps
    assert left_after([1.0] * 10)[3:] == pytest.approx([96, 95, 94, 93, 92, 91, 90])
    assert left_after([1.0] * 10, total=1000, amount=100)[-1] == 0


def test_one_slow_step_changes_nothing_but_a_new_pace_does() -> None:
    assert left_after([1.0] * 9 + [60.0])[-1] == pytest.approx(90)
    assert left_after([1.0] * 40 + [3.0] * 40)[-1] == pytest.approx(60)


def test_bytes_count_not_steps() -> None:
    clock = Clock()
    remaining, done = RemainingTime(clock), 0
    for size in (10, 1000, 10, 1000, 10, 1000, 10, 1000):
        clock.now += size / 100
        done += size
        left = remaining.update(done, 10_000)
    assert left == pytest.approx((10_000 - done) / 100)


def test_callbacks_without_news_do_not_count() -> None:
    clock = Clock()
    remaining = RemainingTime(clock)
    for _ in range(50):
        clock.now += 1
        assert remaining.update(0, 10) is None


def test_text() -> None:
    line = numbered("layer", 12, 300, "blocks.3.ffn.0")
    assert progress_line(line, None) == "layer 12 of 300: blocks.3.ffn.0"
    assert progress_line(line, 80.2) == "layer 12 of 300: blocks.3.ffn.0, 1 min 20 s left"
    durations = [format_seconds(s) for s in (0.2, 59.4, 59.6, 3599, 3600, 7530)]
    assert durations == ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "2 h 6 min"]


def test_a_throttle_is_ready_once_per_interval() -> None:
    clock = Clock()
    throttle, ready = Throttle(0.5, clock), []
    for _ in range(8):
        ready.append(throttle.ready())
        clock.now += 0.25
    assert ready == [True, False] * 4
    assert throttle.ready() and throttle.ready(force=True) and not throttle.ready()
