"""Recipes for generations of GPUs, on the key lists of real models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nvfp4_foundry.quant.errors import RecipeError
from nvfp4_foundry.quant.planning import (
    Inventory,
    Recipe,
    for_gpu,
    get_preset,
    inventory_of,
    load_presets,
    make_plan,
    parse_rule_line,
)
from nvfp4_foundry.quant.planning.recipe import validated
from nvfp4_foundry.quant.sources import TensorInfo

InventoryNamed = Callable[[str], Inventory]


def inventory(*shapes: tuple[str, tuple[int, ...]]) -> Inventory:
    return inventory_of(TensorInfo(f"{n}.weight", s, torch.bfloat16) for n, s in shapes)


def counts(name: str, model: Inventory, generation: str) -> dict[str, int]:
    recipe = for_gpu(get_preset(name).build(), generation)  # type: ignore[arg-type]
    return make_plan(recipe, model).counts()


def test_wan_for_every_generation(inventory_named: InventoryNamed) -> None:
    wan = inventory_named("wan2.2-ti2v-5b")
    blackwell = counts("wan2.2-ti2v-5b", wan, "blackwell")
    four, eight = blackwell["nvfp4"], blackwell["float8_e4m3fn"]
    kept = blackwell["keep"]
    assert counts("wan2.2-ti2v-5b", wan, "none") == blackwell
    assert counts("wan2.2-ti2v-5b", wan, "ada_hopper") == {
        "float8_e4m3fn": four + eight, "keep": kept,
    }  # fmt: skip
    assert counts("wan2.2-ti2v-5b", wan, "turing_ampere") == {
        "convrot_w4a4": four, "int8_convrot": eight, "keep": kept,
    }  # fmt: skip


def test_formats_in_16_bits_and_the_users_rules_stay() -> None:
    recipe = get_preset("wan2.2-14b").build({"edge_format": "nvfp4_w4a16"})
    recipe = recipe.with_rules([parse_rule_line("blocks.*.ffn.2 = nvfp4")])
    changed = for_gpu(recipe, "turing_ampere")
    assert changed.rules[0] == recipe.rules[0]
    assert "nvfp4_w4a16" in changed.formats()
    assert changed.name == "wan2.2-14b, for Turing or Ampere"


def test_a_recipe_that_needs_no_change_is_the_same() -> None:
    for preset in load_presets().values():
        recipe = preset.build()
        assert for_gpu(recipe, "none") is recipe and for_gpu(recipe, "blackwell") is recipe
    ampere = for_gpu(get_preset("smart").build(), "turing_ampere")
    assert for_gpu(ampere, "turing_ampere") is ampere


def test_four_bits_go_back_to_nvfp4_on_blackwell() -> None:
    recipe = Recipe.model_validate({"rules": [{"format": "convrot_w4a4"}]})
    assert for_gpu(recipe, "blackwell").rules[0].format == "nvfp4"


def test_where_a_shape_does_not_fit_the_fallback_is_taken() -> None:
    """320 channels are rotated by 64, 100 not at all."""
    model = inventory(("a", (64, 512)), ("b", (64, 320)), ("c", (64, 100)))
    rules = [{"pattern": "c", "format": "float8_e4m3fn"}, {"format": "nvfp4"}]
    plan = make_plan(for_gpu(Recipe.model_validate({"rules": rules}), "turing_ampere"), model)
    assert {la.name: la.format for la in plan.layers} == {
        "a": "convrot_w4a4", "b": "int8_convrot", "c": "int8_rowwise",
    }  # fmt: skip
    assert plan.warnings == ()
    assert "convrot_w4a4, else int8_convrot" in plan.layers[1].reason


def test_a_fallback_that_does_not_fit_gives_way_too() -> None:
    """Each format names the next one: rotation by 256, by 16 to 256, none."""
    model = inventory(("a", (64, 512)), ("b", (64, 320)), ("c", (64, 100)))
    plan = make_plan(Recipe.model_validate({"rules": [{"format": "convrot_w4a4"}]}), model)
    assert [la.format for la in plan.layers] == ["convrot_w4a4", "int8_convrot", "int8_rowwise"]
    assert plan.warnings == ()


def test_a_fallback_must_be_a_format() -> None:
    with pytest.raises(RecipeError, match="int8_rowwise"):
        validated(Recipe, {"rules": [{"format": "nvfp4", "fallback": "int9"}]}, "recipe")


EMBEDDING = inventory(("embed_tokens", (1000, 256)), ("layers.q", (256, 256)))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "int8_rowwise", "int8_convrot"])
def test_embeddings_are_quantized_where_a_rule_names_their_kind(name: str) -> None:
    rules = [{"format": name, "kinds": ["embedding"]}]
    plan = make_plan(Recipe.model_validate({"rules": rules}), EMBEDDING)
    assert {la.name: la.format for la in plan.quantized()} == {"embed_tokens": name}
    unnamed = make_plan(Recipe.model_validate({"rules": [{"format": name}]}), EMBEDDING)
    assert [la.name for la in unnamed.quantized()] == ["layers.q"]


@pytest.mark.parametrize("name", ["nvfp4", "mxfp8", "convrot_w4a4"])
def test_comfyui_loads_no_other_format_for_embeddings(name: str) -> None:
    rules = [{"format": name, "kinds": ["embedding"]}, {"format": "int8_rowwise"}]
    plan = make_plan(Recipe.model_validate({"rules": rules}), EMBEDDING)
    assert "its kind is embedding" in plan.warnings[0]
