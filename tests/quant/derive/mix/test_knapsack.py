"""The choice of one option per group is as good as a full search and never exceeds the limit."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvfp4_foundry.quant.derive.mix.knapsack import RELATIVE_GAP, choose, least_value, least_weight

Table = list[list[float]]
Options = list[list[tuple[float, float]]]

# Squared errors and bytes of real layers, whose magnitudes are far apart.
VALUES = st.floats(1e-9, 1e-2) | st.just(0.0)
WEIGHTS = st.floats(1.0, 2e8) | st.integers(10**3, 10**8).map(float)
GROUPS = st.lists(
    st.lists(st.tuples(VALUES, WEIGHTS), min_size=1, max_size=4), min_size=1, max_size=6
)


def tables(groups: Options) -> tuple[Table, Table]:
    return [[v for v, _ in g] for g in groups], [[w for _, w in g] for g in groups]


def total(table: Table, chosen: list[int]) -> float:
    return math.fsum(row[i] for row, i in zip(table, chosen, strict=True))


def best_of_all(values: Table, weights: Table, limit: float) -> float | None:
    every = itertools.product(*(range(len(row)) for row in values))
    fitting = [total(values, list(c)) for c in every if total(weights, list(c)) <= limit]
    return min(fitting, default=None)


@settings(max_examples=60, deadline=None)
@given(GROUPS, st.floats(0, 1))
def test_as_good_as_trying_every_choice(groups: Options, part: float) -> None:
    values, weights = tables(groups)
    low = total(weights, least_weight(values, weights))
    high = total(weights, least_value(values, weights))
    limit = low + part * (high - low)
    chosen = choose(values, weights, limit)
    best = best_of_all(values, weights, limit * (1 + 1e-12))
    assert chosen is not None and best is not None
    assert total(weights, chosen) <= limit * (1 + 1e-12)
    assert total(values, chosen) <= best * (1 + 2 * RELATIVE_GAP) + 1e-18


@settings(max_examples=40, deadline=None)
@given(GROUPS, st.floats(0, 1))
def test_the_relaxed_choice_is_the_best_of_its_own_weight(groups: Options, part: float) -> None:
    values, weights = tables(groups)
    low = total(weights, least_weight(values, weights))
    high = total(weights, least_value(values, weights))
    chosen = choose(values, weights, low + part * (high - low), gap=math.inf)
    assert chosen is not None
    weight = total(weights, chosen)
    assert weight <= (low + part * (high - low)) * (1 + 1e-12)
    best = best_of_all(values, weights, weight)
    assert best is not None
    assert total(values, chosen) <= best + 1e-6 * total(values, least_weight(values, weights))


def test_a_case_that_greed_gets_wrong() -> None:
    values, weights = [[10.0, 3.0], [10.0, 4.5], [10.0, 4.5]], [[0.0, 6.0], [0.0, 5.0], [0.0, 5.0]]
    assert choose(values, weights, 10.0) == [0, 1, 1]  # the best ratio is the first group's


def test_nothing_fits() -> None:
    assert choose([[1.0, 0.0]], [[5.0, 9.0]], 4.999) is None
    assert choose([[1.0, 0.0]], [[5.0, 9.0]], 5.0) == [0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_ties_go_to_the_better_option(order: tuple[int, ...]) -> None:
    options = [(1.0, 5.0), (0.5, 5.0), (0.5, 7.0)]
    values, weights = tables([[options[i] for i in order]])
    for chosen in (least_weight(values, weights), least_value(values, weights)):
        assert options[order[chosen[0]]] == (0.5, 5.0)
