"""Mixes that keep a share of the weights in 4-bit products."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvfp4_foundry.quant.derive import Budget, mix_plan, parse_share, with_four_bit
from nvfp4_foundry.quant.derive.mix.two_limits import OutOfReachError, choose_within
from nvfp4_foundry.quant.errors import PlanError
from nvfp4_foundry.quant.planning import Inventory, Plan, Recipe, make_plan
from nvfp4_foundry.quant.reports.mix import describe_mix

from tests.helpers.made_up_models import inventory_from, sensitivity_of

ASYM = "asym_w4a8_int8"
FORMATS = ("nvfp4", ASYM, "float8_e4m3fn")
ERRORS = {"nvfp4": 4.0, "nvfp4_w4a16": 2.0, ASYM: 1.0, "float8_e4m3fn": 0.1}

TRIPLES = st.tuples(st.floats(1e-6, 1e-2), st.integers(10**3, 10**6), st.integers(0, 10**6))
GROUPS = st.lists(st.lists(TRIPLES, min_size=1, max_size=3), min_size=1, max_size=5)


def layers(count: int = 6) -> dict[str, tuple[int, int]]:
    return {f"blocks.{n}.ffn": (64, 256) for n in range(count)}


def made(comfyui: str = "0.33") -> tuple[Inventory, Plan]:
    inventory = inventory_from(layers())
    recipe = Recipe.model_validate({"rules": [], "default": "nvfp4"}).for_comfyui(comfyui)
    return inventory, make_plan(recipe, inventory)


def costs() -> dict[str, dict[str, float | None]]:
    """Later layers are more sensitive."""
    return {
        name: {fmt: error * 1e-4 * (n + 1) for fmt, error in ERRORS.items()}
        for n, name in enumerate(layers())
    }


@settings(max_examples=80, deadline=None)
@given(GROUPS, st.floats(0, 1), st.floats(0, 1))
def test_as_good_as_trying_every_choice(
    groups: list[list[tuple[float, int, int]]], part: float, other_part: float
) -> None:
    values, weights, others = ([[float(o[k]) for o in g] for g in groups] for k in range(3))

    def total(table: list[list[float]], chosen: tuple[int, ...] | list[int]) -> float:
        return math.fsum(row[i] for row, i in zip(table, chosen, strict=True))

    def limit_of(table: list[list[float]], share: float) -> float:
        low, high = math.fsum(map(min, table)), math.fsum(map(max, table))
        return low + share * (high - low)

    limit, most = limit_of(weights, part), limit_of(others, other_part)
    every = list(itertools.product(*(range(len(g)) for g in groups)))
    light = [c for c in every if total(weights, c) <= limit]
    both = [total(values, c) for c in light if total(others, c) <= most]
    if not both:
        with pytest.raises(OutOfReachError) as refused:
            choose_within(values, weights, limit, others, most)
        assert refused.value.least == pytest.approx(min(total(others, c) for c in light), rel=1e-3)
        return
    found = choose_within(values, weights, limit, others, most)
    assert found is not None
    assert total(weights, found) <= limit * (1 + 1e-9)
    assert total(others, found) <= most * (1 + 1e-9) + 1e-9
    assert total(values, found) <= min(both) * (1 + 2e-3)


def test_without_a_share_the_slower_format_of_the_same_size_takes_all() -> None:
    inventory, base = made()
    mix = mix_plan(base, inventory, sensitivity_of(inventory, costs(), {}), None, FORMATS)
    assert "nvfp4" not in mix.point.counts and mix.point.four_bit == 0


@pytest.mark.parametrize(("share", "kept"), [(0.5, 3), (0.51, 4), (1.0, 6)])
def test_the_least_sensitive_layers_keep_4_bit_products(share: float, kept: int) -> None:
    inventory, base = made()
    sensitivity = sensitivity_of(inventory, costs(), {})
    # a little room, because the new format stores a few more bytes
    budget = with_four_bit(None, base.bytes_after, share)
    mix = mix_plan(base, inventory, sensitivity, budget, FORMATS)
    formats = {la.name: la.format for la in mix.plan.layers}
    assert [formats[name] for name in list(layers())[:kept]] == ["nvfp4"] * kept
    assert mix.point.four_bit == pytest.approx(kept / 6)
    assert all(point.four_bit >= share - 1e-9 for point in mix.frontier)
    text = describe_mix(mix)
    assert f"{kept / 6:.1%} of the mixed weights in 4-bit products" in text
    assert f"at least {share:.0%} in 4-bit products" in str(mix.budget)


@pytest.mark.parametrize("budget", [Budget(bits=5.5), Budget(error=0.06)])
def test_every_other_limit_keeps_the_share(budget: Budget) -> None:
    inventory, base = made()
    sensitivity = sensitivity_of(inventory, costs(), {})
    mix = mix_plan(base, inventory, sensitivity, with_four_bit(budget, 1, 0.5), FORMATS)
    assert mix.point.four_bit >= 0.5
    assert mix.below_budget >= 0


def test_a_share_out_of_reach_is_refused_with_the_largest() -> None:
    inventory, base = made()
    sensitivity = sensitivity_of(inventory, costs(), {})
    with pytest.raises(PlanError, match=r"at most 0% can stay there.*such as nvfp4"):
        mix_plan(base, inventory, sensitivity, Budget(bits=8, four_bit=0.5), (ASYM,))


def test_a_limit_of_each_layer_cannot_keep_a_share() -> None:
    with pytest.raises(PlanError, match="limit of size, bits or error instead"):
        Budget(layer_error=0.08, four_bit=0.5)


def test_an_older_comfyui_is_refused() -> None:
    inventory, base = made("0.29")
    with pytest.raises(PlanError, match=r"0\.33"):
        mix_plan(base, inventory, sensitivity_of(inventory, costs(), {}), None, FORMATS)


@pytest.mark.parametrize(("text", "share"), [("60%", 0.6), ("0.6", 0.6), (" 100 % ", 1.0)])
def test_shares_are_read(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["60", "half", "-1%", "101%", ""])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match=r"write e\.g\. 60% or 0\.6"):
        parse_share(text)
