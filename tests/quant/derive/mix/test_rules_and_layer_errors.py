"""Mixes with layers that the user decides, and mixes within an error of each layer."""

from __future__ import annotations

import math

import pytest
from nvfp4_foundry.quant.derive import Budget, mix_plan, parse_budget
from nvfp4_foundry.quant.errors import PlanError
from nvfp4_foundry.quant.planning import Inventory, Plan, make_plan, parse_rule_lines

from tests.helpers.made_up_models import MIXED, formats_of, random_costs, sensitivity_of

Small = tuple[Inventory, Plan]
FORMATS = ("nvfp4", "float8_e4m3fn", "bf16")


@pytest.mark.parametrize("pinned", ["a", "b", "odd"])
@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "bf16"])
def test_a_rule_decides_its_layer_and_the_rest_is_mixed(
    small: Small, pinned: str, fmt: str
) -> None:
    inventory, base = small
    costs = random_costs(MIXED, 3)
    rules = parse_rule_lines(f"{pinned} = {fmt}")
    mix = mix_plan(
        base, inventory, sensitivity_of(inventory, costs), Budget(bits=9.0), FORMATS, rules=rules
    )
    assert formats_of(mix.plan)[pinned] == fmt
    again = make_plan(mix.recipe, inventory)
    assert formats_of(again) == formats_of(mix.plan)
    assert again.bytes_after == mix.point.bytes == mix.plan.bytes_after


def test_a_pinned_layer_counts_in_size_and_error(small: Small) -> None:
    inventory, base = small
    costs = random_costs(MIXED, 5)
    sensitivity = sensitivity_of(inventory, costs)
    rules = parse_rule_lines("a = nvfp4")
    mix = mix_plan(base, inventory, sensitivity, Budget(size=10**6), FORMATS, rules=rules)
    chosen = formats_of(mix.plan)
    assert chosen["a"] == "nvfp4" and {chosen[n] for n in ("b", "c", "odd")} == {"bf16"}
    assert mix.point.error == pytest.approx(math.sqrt(costs["a"]["nvfp4"] or 0))


def test_the_own_size_is_that_of_the_preset_without_the_rules(small: Small) -> None:
    inventory, base = small
    sensitivity = sensitivity_of(inventory, random_costs(MIXED, 1))
    rules = parse_rule_lines("a = bf16")
    with pytest.raises(PlanError, match="out of reach"):  # all others are as small as can be
        mix_plan(base, inventory, sensitivity, None, FORMATS, rules=rules)
    plain = mix_plan(base, inventory, sensitivity, None, FORMATS)
    with_rules = mix_plan(base, inventory, sensitivity, Budget(bits=12), FORMATS, rules=rules)
    assert with_rules.preset == plain.preset and with_rules.preset_name == plain.preset_name


def test_a_rule_for_a_layer_of_a_shared_input_leaves_the_others_together(small: Small) -> None:
    inventory, base = small
    sensitivity = sensitivity_of(inventory, random_costs(MIXED, 2), {"b": "x", "c": "x"})
    rules = parse_rule_lines("b = bf16")
    mix = mix_plan(base, inventory, sensitivity, Budget(bits=9.0), FORMATS, rules=rules)
    assert formats_of(mix.plan)["b"] == "bf16"


def test_each_layer_gets_its_smallest_format_within_the_error(small: Small) -> None:
    inventory, base = small
    errors = {
        "a": {"nvfp4": 0.07, "float8_e4m3fn": 0.02},
        "b": {"nvfp4": 0.09, "float8_e4m3fn": 0.02},
        "c": {"nvfp4": 0.05, "float8_e4m3fn": 0.02},
        "odd": {"float8_e4m3fn": 0.2},
    }
    costs = {name: {f: e * e for f, e in by.items()} for name, by in errors.items()}
    sensitivity = sensitivity_of(inventory, costs, {"b": "x", "c": "x"})
    mix = mix_plan(base, inventory, sensitivity, Budget(layer_error=0.08), FORMATS)
    chosen = formats_of(mix.plan)
    # b and c share an input; float8 is too inexact for odd, so it gets the most precise format
    assert chosen == {
        "a": "nvfp4", "b": "float8_e4m3fn", "c": "float8_e4m3fn", "odd": "bf16", "keep": "keep",
    }  # fmt: skip
    assert str(mix.budget) == "error 8% in each layer" and mix.below_budget == 0


def test_an_unknown_error_is_not_within_any_limit(small: Small) -> None:
    inventory, base = small
    costs = {**random_costs(MIXED, 4), "a": {"nvfp4": None, "float8_e4m3fn": None}}
    mix = mix_plan(base, inventory, sensitivity_of(inventory, costs), Budget(layer_error=0.9))
    assert formats_of(mix.plan)["a"] == "bf16" and mix.unknown == ("a",)


@pytest.mark.parametrize("text", ["layer-error=8%", "layer-error=0.08", "LAYER-ERROR = 8%"])
def test_the_command_line_reads_the_limit(text: str) -> None:
    assert parse_budget(text).layer_error == pytest.approx(0.08)


def test_a_limit_of_several_hundred_percent_is_a_mistake() -> None:
    with pytest.raises(PlanError, match="write layer-error=8%"):
        parse_budget("layer-error=8")
