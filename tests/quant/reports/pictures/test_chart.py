"""Ticks are round, evenly spaced and inside the range; scales map ends to ends."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nvfp4_foundry.quant.reports.pictures.chart import Scale, round_ticks, tick_decimals


@given(st.floats(-1e3, 1e6), st.floats(1e-4, 1e6), st.integers(3, 12))
def test_ticks(low: float, span: float, about: int) -> None:
    assume(span > 1e-6 * abs(low))  # no chart shows a range so far from zero
    high = low + span
    ticks = round_ticks(low, high, about)
    slack = span * 1e-6
    assert about / 2.6 - 1 <= len(ticks) <= about + 2
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    texts = [f"{tick:.{tick_decimals(ticks)}f}" for tick in ticks]
    assert len(set(texts)) == len(ticks)
    assert all(float(t) == pytest.approx(v, abs=slack) for t, v in zip(texts, ticks, strict=True))


def test_known_ticks() -> None:
    assert round_ticks(2.6, 10.3, 9) == [3, 4, 5, 6, 7, 8, 9, 10]
    assert round_ticks(0, 0.17, 7) == pytest.approx([0, 0.05, 0.1, 0.15])
    assert round_ticks(3, 3) == [3]
    assert tick_decimals([0, 0.05, 0.1]) == 2 and tick_decimals([0, 10]) == 0


def test_a_scale_may_run_downwards() -> None:
    scale = Scale(0, 10, 600, 100)
    assert (scale(0), scale(10), scale(5)) == (600, 100, 350)
