"""The preset that is chosen by the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nvfp4_foundry.quant.planning import (
    Inventory,
    automatic_recipe,
    for_gpu,
    get_preset,
    load_presets,
    load_recipe,
    make_plan,
    parse_rule_lines,
    save_recipe,
)

InventoryNamed = Callable[[str], Inventory]
MODELS = {
    "wan2.2-ti2v-5b": "wan2.2-ti2v-5b",
    "wan2.2-i2v-14b": "wan2.2-14b",
    "qwen-image-2512": "qwen-image-2512",
    "qwen-image-edit-2511": "qwen-image-edit-2511",
}


@pytest.mark.parametrize("model", MODELS)
def test_the_plan_is_that_of_the_preset(model: str, inventory_named: InventoryNamed) -> None:
    inventory = inventory_named(model)
    plan = make_plan(automatic_recipe(), inventory)
    wanted = make_plan(get_preset(MODELS[model]).build(), inventory)
    assert plan.recipe.name == MODELS[model] and not plan.recipe.auto
    assert plan.layers == wanted.layers and plan.recipe.rules == wanted.recipe.rules


def test_every_preset_for_a_family_is_chosen_by_its_architecture() -> None:
    ids = [a for preset in load_presets().values() for a in preset.architectures]
    assert len(ids) == len(set(ids)), "two presets for one architecture: which one is automatic?"


@pytest.mark.parametrize("generation", ["ada_hopper", "turing_ampere", "none"])
def test_the_gpu_is_applied_when_the_preset_is_known(
    generation: str, inventory_named: InventoryNamed
) -> None:
    inventory = inventory_named("wan2.2-ti2v-5b")
    chosen = for_gpu(automatic_recipe(), generation)  # type: ignore[arg-type]
    wanted = for_gpu(get_preset("wan2.2-ti2v-5b").build(), generation)  # type: ignore[arg-type]
    assert make_plan(chosen, inventory).layers == make_plan(wanted, inventory).layers


def test_rules_and_numbers_of_the_user_win(inventory_named: InventoryNamed, tmp_path: Path) -> None:
    recipe = automatic_recipe().with_rules(parse_rule_lines("blocks.3.ffn.2 = bf16"))
    recipe = recipe.with_numbers("max", "dynamic")
    save_recipe(recipe, tmp_path / "auto.json")
    recipe = load_recipe(tmp_path / "auto.json")
    plan = make_plan(recipe, inventory_named("wan2.2-ti2v-5b"))
    (layer,) = (la for la in plan.layers if la.name == "blocks.3.ffn.2")
    assert layer.format == "bf16" and "your rule" in layer.reason
    assert plan.recipe.rounding == "max" and plan.recipe.input_scale.text == "dynamic"
