"""Mixes where errors are unknown: such layers count as sensitive."""

from __future__ import annotations

import math

import pytest
from nvfp4_foundry.quant.derive import Budget, mix_plan
from nvfp4_foundry.quant.errors import PlanError
from nvfp4_foundry.quant.planning import Inventory, Plan

from tests.helpers.made_up_models import MIXED, formats_of, random_costs, sensitivity_of


@pytest.mark.parametrize("entry", [None, {}, {"nvfp4": None, "float8_e4m3fn": math.nan}])
def test_unknown_is_sensitive(
    small: tuple[Inventory, Plan], entry: dict[str, float | None] | None
) -> None:
    inventory, base = small
    costs = random_costs(MIXED, 2)
    del costs["a"]
    if entry is not None:
        costs["a"] = entry
    sensitivity = sensitivity_of(inventory, costs)
    for formats, precise, uncounted in (
        (("nvfp4", "float8_e4m3fn"), "float8_e4m3fn", 1),
        (("nvfp4", "float8_e4m3fn", "bf16"), "bf16", 0),
    ):
        mix = mix_plan(base, inventory, sensitivity, Budget(error=1.0), formats)
        layer = next(la for la in mix.plan.layers if la.name == "a")
        assert layer.format == precise
        assert "unknown, so the layer gets the most precise format" in layer.reason
        assert mix.unknown == ("a",) and mix.point.uncounted == uncounted
        assert mix.preset.uncounted == 1
        assert "1 layers of unknown error" in mix.plan.warnings[0]
        assert formats_of(mix.plan)["b"] == "nvfp4"  # what is known is still mixed


def test_an_unknown_layer_raises_those_that_share_its_input(small: tuple[Inventory, Plan]) -> None:
    inventory, base = small
    costs = random_costs(MIXED, 3)
    costs["b"]["nvfp4"] = None
    inputs = {"b": "x", "c": "x"}
    mix = mix_plan(base, inventory, sensitivity_of(inventory, costs, inputs), Budget(error=1.0))
    assert {formats_of(mix.plan)[name] for name in "bc"} == {"float8_e4m3fn"}
    costs["b"]["float8_e4m3fn"] = None
    mix = mix_plan(base, inventory, sensitivity_of(inventory, costs, inputs), Budget(error=1.0))
    assert {formats_of(mix.plan)[name] for name in "bc"} == {"bf16"}
    assert mix.unknown == ("b",)
    reasons = {la.name: la.reason for la in mix.plan.layers}
    assert "b, whose error is unknown" in reasons["c"]


def test_out_of_reach_because_of_unknown_layers_says_so(small: tuple[Inventory, Plan]) -> None:
    inventory, base = small
    costs = {name: c for name, c in random_costs(MIXED, 4).items() if name != "b"}
    with pytest.raises(PlanError, match="1 layers of unknown error"):
        mix_plan(base, inventory, sensitivity_of(inventory, costs), Budget(bits=6))
