"""Mixes that cannot be made as asked: refused, stopped, or made with a warning."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from nvfp4_foundry.quant.derive import mix_plan, parse_budget
from nvfp4_foundry.quant.errors import CalibrationError, FormatError, PlanError
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.planning import Inventory, Plan, Recipe, make_plan

from tests.helpers.made_up_models import MIXED, inventory_from, random_costs, sensitivity_of


@pytest.mark.parametrize("kind", ["size", "bits", "error"])
def test_a_budget_out_of_reach_names_one_in_reach(small: tuple[Inventory, Plan], kind: str) -> None:
    inventory, base = small
    sensitivity = sensitivity_of(inventory, random_costs(MIXED, 4))
    formats = ("nvfp4", "float8_e4m3fn")
    low = {"size": "1kB", "bits": "4.2", "error": "0.0001%"}[kind]
    with pytest.raises(PlanError, match="out of reach") as caught:
        mix_plan(base, inventory, sensitivity, parse_budget(f"{kind}={low}"), formats)
    pattern = {"size": r"allowed take ([\d.]+ \w+)", "bits": r"allowed take ([\d.]+)",
               "error": r"allowed give ([\d.]+%)"}[kind]  # fmt: skip
    found = re.search(pattern, str(caught.value))
    assert found and ("allow" in str(caught.value).split(";")[-1])
    mix = mix_plan(base, inventory, sensitivity, parse_budget(f"{kind}={found[1]}"), formats)
    assert mix.below_budget < 0.02


def test_refuses_what_cannot_be_mixed(small: tuple[Inventory, Plan]) -> None:
    inventory, base = small
    sensitivity = sensitivity_of(inventory, random_costs(MIXED, 5))
    with pytest.raises(PlanError, match="formats to choose from"):
        mix_plan(base, inventory, sensitivity, formats=())
    with pytest.raises(FormatError, match="int3"):
        mix_plan(base, inventory, sensitivity, formats=("nvfp4", "int3"))
    with pytest.raises(PlanError, match="none of the 4 layers"):
        mix_plan(base, inventory, sensitivity_of(inventory, {}))
    nothing = make_plan(Recipe(default="bf16"), inventory)
    with pytest.raises(PlanError, match="nothing to mix"):
        mix_plan(nothing, inventory, sensitivity)
    other = ModelFingerprint({"a": (8, 8)}, {})
    with pytest.raises(CalibrationError, match="different model"):
        mix_plan(base, inventory, sensitivity, fingerprint=other)
    mix_plan(base, inventory, sensitivity, fingerprint=sensitivity.fingerprint)


def test_a_plan_of_another_model_is_refused(small: tuple[Inventory, Plan]) -> None:
    inventory, base = small
    sensitivity = sensitivity_of(inventory, random_costs(MIXED, 5))
    shapes = {name: layer.shape for name, layer in inventory.layers.items()}
    for changed in ({MIXED[0]: (32, 96)}, {"another": (64, 64)}):
        with pytest.raises(PlanError, match="the plan was made for another model"):
            mix_plan(base, inventory_from({**shapes, **changed}), sensitivity)


def test_other_weights_are_a_warning(small: tuple[Inventory, Plan]) -> None:
    inventory, base = small
    known = sensitivity_of(inventory, random_costs(MIXED, 5))
    shapes = known.fingerprint.shapes
    measured = ModelFingerprint(shapes, {}, {"m": (1.0, 2.0)})
    merged = ModelFingerprint(shapes, {}, {"m": (1.0, 2.1)})
    sensitivity = replace(known, fingerprint=measured)
    assert mix_plan(base, inventory, sensitivity, fingerprint=measured).plan.warnings == ()
    (warning,) = mix_plan(base, inventory, sensitivity, fingerprint=merged).plan.warnings
    assert "measured on other weights" in warning


def test_a_mix_may_be_stopped_between_points_of_the_frontier(
    small: tuple[Inventory, Plan],
) -> None:
    inventory, base = small
    seen = []

    def stop(done: int, total: int, what: str) -> None:
        seen.append((done, total, what))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mix_plan(
            base,
            inventory,
            sensitivity_of(inventory, random_costs(MIXED, 5)),
            points=9,
            on_progress=stop,
        )
    assert seen == [(n, 9, f"point {n} of 9: frontier") for n in (1, 2, 3)]


def test_another_rounding_is_a_warning(small: tuple[Inventory, Plan]) -> None:
    inventory, base = small
    costs = random_costs(MIXED, 5)
    assert mix_plan(base, inventory, sensitivity_of(inventory, costs)).plan.warnings == ()
    mix = mix_plan(base, inventory, sensitivity_of(inventory, costs, rounding="max"))
    assert "rounding max" in mix.plan.warnings[0]
