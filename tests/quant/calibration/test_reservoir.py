"""Row samples: uniform, bounded, and independent of the order of merging."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nvfp4_foundry.quant.calibration.reservoir import Reservoir, keep_lowest


def _fill(reservoir: Reservoir, counts: list[int], seed: int) -> None:
    """Add rows numbered from 0, as a caller does."""
    rng = np.random.default_rng(seed)
    start = 0
    for call, count in enumerate(counts):
        chosen = reservoir.choose(count, rng)
        rows = torch.from_numpy(start + chosen.positions).double().unsqueeze(1)
        reservoir.add(rows, chosen, call)
        start += count


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(0, 20), st.integers(0, 2**32))
def test_keeps_exactly_the_lowest_priorities(counts, capacity, seed) -> None:
    reservoir = Reservoir(capacity)
    _fill(reservoir, counts, seed)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([rng.random(count) for count in counts] or [np.empty(0)])
    expected = np.argsort(drawn)[:capacity]
    rows, priorities, calls = reservoir.to_host(1)
    ends = np.cumsum(counts)
    assert calls.tolist() == np.searchsorted(ends, expected, side="right").tolist()
    assert rows[:, 0].tolist() == expected.tolist()
    np.testing.assert_array_equal(priorities, drawn[expected])
    assert reservoir.limit == (np.sort(drawn)[capacity] if drawn.size > capacity else np.inf)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 9), st.integers(0, 99))
def test_shrinking_is_the_same_as_a_smaller_start(counts, capacity, seed) -> None:
    large, small = Reservoir(10), Reservoir(capacity)
    _fill(large, counts, seed)
    _fill(small, counts, seed)
    large.shrink(capacity)
    assert large.limit == small.limit
    for ours, theirs in zip(large.to_host(1), small.to_host(1), strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_shrinking_between_choice_and_arrival() -> None:
    reservoir, rng = Reservoir(10), np.random.default_rng(0)
    chosen = reservoir.choose(50, rng)
    reservoir.shrink(4)
    reservoir.add(torch.from_numpy(chosen.positions).double().unsqueeze(1), chosen, 7)
    rows, priorities, calls = reservoir.to_host(1)
    assert len(rows) == 4 and calls.tolist() == [7] * 4
    assert priorities.max() < reservoir.limit


def test_every_row_is_equally_likely() -> None:
    counts, capacity, trials = [50, 3, 120, 27], 20, 3000
    hits = np.zeros(200)
    for seed in range(trials):
        reservoir = Reservoir(capacity)
        _fill(reservoir, counts, seed)
        hits[reservoir.to_host(1)[0][:, 0].long().numpy()] += 1
    expected = trials * capacity / 200
    # Variance per row is about expected * 0.9; chi-square over 199 degrees of freedom.
    chi_square = ((hits - expected) ** 2 / (expected * (1 - capacity / 200))).sum()
    assert 130 < chi_square < 280


def test_copies_are_independent() -> None:
    reservoir = Reservoir(5)
    _fill(reservoir, [20], 0)
    copy = reservoir.copy()
    before = copy.to_host(1)
    _fill(reservoir, [2000], 1)
    for ours, theirs in zip(copy.to_host(1), before, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("capacity", [0, 2, 5])
def test_keep_lowest(capacity) -> None:
    keep, limit = keep_lowest(np.array([0.5, 0.1, np.inf, 0.9, 0.3]), 0.8, capacity)
    assert (
        keep.tolist()
        == {
            0: [False] * 5,
            2: [False, True, False, False, True],
            5: [True, True, False, False, True],
        }[capacity]
    )
    assert limit == {0: 0.1, 2: 0.5, 5: 0.8}[capacity]
