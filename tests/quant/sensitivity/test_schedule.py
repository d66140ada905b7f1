"""A short sampling has the first and the last sigma of the long one."""

from __future__ import annotations

from nvfp4_foundry.quant.sensitivity.schedule import short_schedule


def test_a_short_sampling_begins_and_ends_where_the_long_one_does() -> None:
    assert short_schedule(20, 4) == (0, 5, 10, 15, 20)
    assert short_schedule(8, 3) == (0, 2, 5, 8)
    assert short_schedule(3, 9) == short_schedule(3, 3) == (0, 1, 2, 3)
    assert short_schedule(5, 1) == short_schedule(5, 0) == (0, 5)
    assert short_schedule(0, 3) == short_schedule(-1, 3) == ()
