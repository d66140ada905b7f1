"""Mixes: the best choice within a budget that keeps the preset's hard rules."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from nvfp4_foundry.quant.derive import MIX_FORMATS, Budget, mix_plan, parse_budget
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.planning import Inventory, Plan, Recipe, get_preset, make_plan
from nvfp4_foundry.quant.planning.plan import stored_bytes

from tests.helpers.made_up_models import (
    MIXED,
    SMALL,
    Costs,
    InventoryNamed,
    formats_of,
    inventory_from,
    random_costs,
    sensitivity_of,
    shared_inputs,
)

FOUR = ("nvfp4", "nvfp4_w4a16", "float8_e4m3fn", "bf16")


def every_mix(
    inventory: Inventory, base: Plan, costs: Costs, formats: tuple[str, ...]
) -> list[tuple[int, float, float]]:
    """Return (bytes, bits, cost) of every mix that is allowed, counted without the tool."""
    found = []
    fixed = sum(la.bytes_after for la in base.layers if la.name not in MIXED)
    weights = sum(math.prod(SMALL[name]) for name in MIXED)
    for choice in itertools.product(formats, repeat=len(MIXED)):
        chosen = dict(zip(MIXED, choice, strict=True))
        if chosen["b"] != chosen["c"] or chosen["odd"].startswith("nvfp4"):
            continue
        bits = {"bf16": 16.0, "float8_e4m3fn": 8.0}
        found.append(
            (
                fixed
                + sum(stored_bytes(inventory.layers[n], get_format(f)) for n, f in chosen.items()),
                sum(bits.get(f, 4.5) * math.prod(SMALL[n]) for n, f in chosen.items()) / weights,
                sum((costs[n].get(f) or 0.0) for n, f in chosen.items()),
            )
        )
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["size", "bits", "error"])
def test_nothing_is_better_than_the_mix(
    small: tuple[Inventory, Plan], seed: int, kind: str
) -> None:
    inventory, base = small
    costs = random_costs(MIXED, seed)
    sensitivity = sensitivity_of(inventory, costs, {"b": "x", "c": "x"})
    mixes = every_mix(inventory, base, costs, FOUR)
    column = {"size": 0, "bits": 1, "error": 2}[kind]
    figures = sorted(mix[column] for mix in mixes)
    limit = random.Random(seed).uniform(figures[0], figures[-1]) * (1 + 1e-9)
    budget = Budget(
        size=int(limit) if kind == "size" else None,
        bits=limit if kind == "bits" else None,
        error=math.sqrt(limit) if kind == "error" else None,
    )
    mix = mix_plan(base, inventory, sensitivity, budget, FOUR)
    fitting = [m for m in mixes if m[column] <= limit]
    if kind == "error":
        assert mix.point.error <= math.sqrt(limit) * (1 + 1e-9)
        assert mix.point.bytes == pytest.approx(min(m[0] for m in fitting), rel=2e-4)
    else:
        assert (mix.point.bytes if kind == "size" else mix.point.bits) <= limit * (1 + 1e-9)
        assert mix.point.error**2 == pytest.approx(min(m[2] for m in fitting), rel=2e-4, abs=1e-15)
    assert 0 <= mix.below_budget < 1
    assert mix.point.bytes == mix.plan.bytes_after


def test_layers_of_one_input_are_alike_and_the_rest_is_not(small: tuple[Inventory, Plan]) -> None:
    inventory, base = small
    costs: dict[str, dict[str, float | None]] = {
        name: {"nvfp4": 1e-6, "float8_e4m3fn": 1e-8} for name in MIXED
    }
    costs["b"] = {"nvfp4": 1e-2, "float8_e4m3fn": 1e-6}
    for inputs, alike in (({"b": "x", "c": "x"}, True), ({}, False), ({"b": "x", "c": "y"}, False)):
        sensitivity = sensitivity_of(inventory, costs, inputs)
        mix = mix_plan(base, inventory, sensitivity, Budget(error=0.01), FOUR)
        formats = formats_of(mix.plan)
        assert formats["b"] == "float8_e4m3fn"
        assert formats["c"] == ("float8_e4m3fn" if alike else "nvfp4")


def test_the_recipes_hard_rules_are_kept(inventory_named: InventoryNamed) -> None:
    inventory = inventory_named("wan2.2-ti2v-5b")
    base = make_plan(get_preset("wan2.2-ti2v-5b").build({"edge_format": "keep"}), inventory)
    linears = [la.name for la in inventory.of_kind("linear")]
    sensitivity = sensitivity_of(inventory, random_costs(linears, 0), shared_inputs(linears))
    mix = mix_plan(base, inventory, sensitivity, parse_budget("bits=5"))
    before = {layer.name: layer for layer in base.layers}
    untouched = [la for la in mix.plan.layers if before[la.name].format == "keep"]
    assert len(untouched) > 40 and all(la == before[la.name] for la in untouched)
    assert {"nvfp4", "float8_e4m3fn"} <= set(mix.point.counts) <= set(MIX_FORMATS)
    assert formats_of(mix.plan)["blocks.0.ffn.0"] == formats_of(mix.plan)["head.head"] == "keep"


def test_a_shape_that_refuses_every_format_gets_the_next_one(small: tuple[Inventory, Plan]) -> None:
    inventory, base = small
    costs = random_costs(MIXED, 1)
    mix = mix_plan(
        base, inventory, sensitivity_of(inventory, costs), Budget(bits=8), ("nvfp4", "nvfp4_w4a16")
    )
    assert formats_of(mix.plan)["odd"] in ("float8_e4m3fn", "float8_e4m3fn_w8a16")
    assert mix.unknown == () and mix.point.counts["nvfp4_w4a16"] == 3


def test_the_presets_point_is_on_the_same_scale(small: tuple[Inventory, Plan]) -> None:
    inventory, base = small
    costs = random_costs(MIXED, 6)
    mix = mix_plan(base, inventory, sensitivity_of(inventory, costs))
    expected = [costs[n]["nvfp4"] for n in "abc"] + [costs["odd"]["float8_e4m3fn"]]
    assert mix.preset.error == pytest.approx(math.sqrt(sum(c or 0 for c in expected)))
    assert mix.preset.bytes == base.bytes_after == mix.budget.size
    assert mix.preset_name == base.recipe.name
    assert mix.point.error <= mix.preset.error and mix.point.bytes <= mix.preset.bytes


def test_reasons_say_what_the_next_format_would_do(small: tuple[Inventory, Plan]) -> None:
    inventory, base = small
    costs: Costs = {
        "a": {"nvfp4": 9e-4, "float8_e4m3fn": 1e-4},
        "b": {"nvfp4": 1e-4, "float8_e4m3fn": 1e-5},
        "c": {"nvfp4": 1e-4, "float8_e4m3fn": 1e-5},
        "odd": {"float8_e4m3fn": 1e-4},
    }
    sensitivity = sensitivity_of(inventory, costs, {"b": "x", "c": "x"})
    mix = mix_plan(base, inventory, sensitivity, Budget(error=0.021), ("nvfp4", "float8_e4m3fn"))
    reasons = {la.name: la.reason for la in mix.plan.layers}
    assert reasons["a"].startswith("mix: 25.00% of the squared error; nvfp4: 225.00%, ")
    assert reasons["a"].endswith("kB less")
    assert reasons["b"].startswith("mix: 25.00% of the squared error; float8_e4m3fn: 2.50%, ")
    assert reasons["b"].endswith("kB more; one format for the 2 layers that share its input")


def test_a_mix_is_a_recipe_of_names() -> None:
    names = ("re:a", "blocks[0].q", "what?", "st*r", "plain.w", "stor")
    inventory = inventory_from(dict.fromkeys(names, (64, 64)))
    recipe = Recipe(default="nvfp4", rounding="max", input_scale="p99.9", headroom=2.0, name="mine")
    costs = random_costs(names, 8)
    base = make_plan(recipe, inventory)
    mix = mix_plan(base, inventory, sensitivity_of(inventory, costs), Budget(bits=6.5))
    assert set(mix.point.counts) == {"nvfp4", "float8_e4m3fn"}
    saved = Recipe.model_validate_json(mix.recipe.to_json())
    assert formats_of(make_plan(saved, inventory)) == formats_of(mix.plan)
    for field in ("rounding", "input_scale", "headroom", "architectures", "default"):
        assert getattr(saved, field) == getattr(recipe, field)
    assert saved.name == "mine-mix" and "6.5 bits" in saved.description
    for name in names:  # each name is decided by its own pattern alone
        rules = [rule for rule in saved.rules if rule.matches_name(name)]
        assert len(rules) == (0 if formats_of(mix.plan)[name] == "nvfp4" else 1)
