"""Probed steps are spread evenly, and each branch is probed once."""

from __future__ import annotations

from nvfp4_foundry.quant.sensitivity.schedule import ProbeSchedule, short_schedule, spread_steps


def test_steps_are_the_middles_of_equal_parts() -> None:
    assert spread_steps(20, 3) == (3, 10, 16)
    assert spread_steps(4, 4) == spread_steps(4, 9) == (0, 1, 2, 3)
    assert spread_steps(5, 1) == (2,)
    assert spread_steps(0, 3) == spread_steps(3, 0) == ()


def test_a_short_sampling_begins_and_ends_where_the_long_one_does() -> None:
    assert short_schedule(20, 4) == (0, 5, 10, 15, 20)
    assert short_schedule(8, 3) == (0, 2, 5, 8)
    assert short_schedule(3, 9) == short_schedule(3, 3) == (0, 1, 2, 3)
    assert short_schedule(5, 1) == short_schedule(5, 0) == (0, 5)
    assert short_schedule(0, 3) == short_schedule(-1, 3) == ()


def test_schedule_takes_each_branch_of_a_chosen_step_once() -> None:
    schedule = ProbeSchedule(1)
    assert not schedule.wants(0.5, [0])  # no sampling began
    schedule.begin([1.0, 0.8, 0.5, 0.0])
    assert not schedule.wants(1.0, [0])
    assert schedule.wants(0.8, [1]) and schedule.wants(0.8, [0])
    assert not schedule.wants(0.8, [0])  # the second call of a second-order sampler
    assert not schedule.wants(0.75, [1]) and not schedule.wants(0.5, [0])
    schedule.begin([0.6, 0.3, 0.1, 0.0])
    assert schedule.wants(0.31, [0]) and not schedule.wants(0.6, [0])
