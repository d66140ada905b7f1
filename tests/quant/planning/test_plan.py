"""Resolving a recipe: rule order, refusals, warnings, sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.errors import PlanError
from nvfp4_foundry.quant.planning import (
    Inventory,
    Plan,
    Recipe,
    get_preset,
    inventory_of,
    make_plan,
    parse_rule_lines,
)
from nvfp4_foundry.quant.sources import TensorInfo

InventoryNamed = Callable[[str], Inventory]


@pytest.fixture
def wan(inventory_named: InventoryNamed) -> Inventory:
    return inventory_named("wan2.2-ti2v-5b")


def plan_of(inventory: Inventory, lines: str, **fields: object) -> Plan:
    return make_plan(Recipe.model_validate({"rules": parse_rule_lines(lines), **fields}), inventory)


def format_of(plan: Plan, name: str) -> str:
    return next(layer.format for layer in plan.layers if layer.name == name)


def test_the_first_matching_rule_wins(wan: Inventory) -> None:
    plan = plan_of(wan, "blocks.3.ffn.0 = fp16\n*.ffn.0 = bf16\n*.ffn.* = nvfp4")
    assert format_of(plan, "blocks.3.ffn.0") == "fp16"
    assert format_of(plan, "blocks.4.ffn.0") == "bf16"
    assert format_of(plan, "blocks.4.ffn.2") == "nvfp4"
    assert format_of(plan, "blocks.4.self_attn.q") == "keep"
    assert plan.counts() == {"keep": 246, "nvfp4": 30, "bf16": 29, "fp16": 1}
    reasons = {layer.name: layer.reason for layer in plan.layers}
    assert reasons["blocks.4.ffn.2"] == "rule 3: *.ffn.* = nvfp4 (your rule)"
    assert reasons["head.head"] == "no rule matches: keep"


def test_added_rules_win_over_the_presets(wan: Inventory) -> None:
    recipe = get_preset("wan2.2-ti2v-5b").build()
    recipe = recipe.with_rules(parse_rule_lines("*.cross_attn.k @ first:1 = nvfp4_w4a16"))
    plan = make_plan(recipe, wan)
    assert format_of(plan, "blocks.0.cross_attn.k") == "nvfp4_w4a16"
    assert format_of(plan, "blocks.0.cross_attn.q") == "float8_e4m3fn"


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("blocks.0.self_atn.q = nvfp4", ["matches no layer", "nearest", "blocks.0.self_attn.q"]),
        ("*.norm3 = nvfp4", ["does not apply to", "30 of kind norm", "blocks.0.norm3"]),
        ("blocks.* @ 30 = nvfp4", ["does not apply to", "blocks of this model: blocks.0 to 29"]),
        ("patch_embedding = nvfp4", ["1 of kind conv"]),
    ],
)  # fmt: skip
def test_a_users_rule_that_matches_nothing_is_an_error(
    wan: Inventory, line: str, parts: list[str]
) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(wan, f"{line}\n*.ffn.0 = nvfp4")
    for part in (line.replace(" @ ", " in "), *parts):
        assert part in str(caught.value)


def test_a_presets_rule_that_matches_nothing_is_a_warning(wan: Inventory) -> None:
    rules = [{"pattern": "nothing.*", "format": "bf16"}, {"pattern": "*.q", "format": "nvfp4"}]
    plan = make_plan(Recipe.model_validate({"rules": rules, "architectures": ["wan-ti2v"]}), wan)
    assert plan.warnings == ("rule 1 (nothing.* = bf16) matches no layer",)


def test_a_shadowed_rule_is_a_warning(wan: Inventory) -> None:
    plan = plan_of(wan, "*.ffn.* = nvfp4\n*.ffn.2 = bf16")
    assert plan.warnings == (
        "rule 2 (*.ffn.2 = bf16 (your rule)) decides nothing: "
        "earlier rules match all its 30 layers",
    )


def test_quantizing_nothing_is_an_error(wan: Inventory) -> None:
    rules = [{"pattern": "layers.*", "format": "nvfp4"}]
    with pytest.raises(PlanError, match=r"quantizes no layer of this model, which is WAN 2\.2"):
        make_plan(Recipe.model_validate({"rules": rules}), wan)


def test_a_recipe_that_only_casts_is_fine(wan: Inventory) -> None:
    plan = plan_of(wan, "* = fp16")
    assert plan.quantized() == []
    assert plan.bytes_after == plan.bytes_before == 2 * 4_999_787_712
    assert plan.warnings == ()


def test_a_quantized_default_is_for_linears(wan: Inventory) -> None:
    plan = make_plan(Recipe(default="nvfp4"), wan)
    assert plan.counts(kind=None) == {"nvfp4": 306, "keep": 182}
    assert plan.warnings == ()
    norms = inventory_of([TensorInfo("n.weight", (8,), torch.float16)])
    with pytest.raises(PlanError, match="quantizes no layer"):
        make_plan(Recipe(default="nvfp4"), norms)


@pytest.mark.parametrize(
    ("shape", "fits"), [((8, 32), True), ((8, 48), False), ((12, 32), False), ((16, 16), False)]
)
def test_alignment_refusals_name_the_layer(shape: tuple[int, int], fits: bool) -> None:
    tensors = [TensorInfo(f"{n}.weight", s, torch.float16) for n, s in
               (("odd", shape), ("even", (64, 64)))]  # fmt: skip
    plan = plan_of(inventory_of(tensors), "* = nvfp4")
    assert format_of(plan, "odd") == ("nvfp4" if fits else "float8_e4m3fn")
    assert format_of(plan, "even") == "nvfp4"
    assert bool(plan.warnings) is not fits
    if not fits:
        assert plan.warnings[0].startswith("odd becomes float8_e4m3fn instead of nvfp4: the native")


def test_integers_are_never_cast() -> None:
    tensors = [
        TensorInfo("ids", (4,), torch.int64),
        TensorInfo("a.weight", (64, 64), torch.float32),
    ]
    plan = plan_of(inventory_of(tensors), "* = bf16")
    assert (format_of(plan, "ids"), format_of(plan, "a")) == ("keep", "bf16")
    assert "torch.int64, so it is not a weight" in plan.warnings[0]


def test_exact_sizes() -> None:
    """Weight, block scales in 128x4 tiles, tensor scale, input scale, marker, bias."""
    tensors = [
        TensorInfo("l.weight", (192, 96), torch.float32),
        TensorInfo("l.bias", (192,), torch.float32),
    ]
    inventory = inventory_of(tensors)
    before = 192 * 96 * 4 + 192 * 4

    def size(fmt: str) -> int:
        plan = plan_of(inventory, f"* = {fmt}")
        assert plan.bytes_before == before
        return plan.bytes_after - 192 * 4

    packed = 192 * 48 + 256 * 8 + 4
    w4a16 = '{"format": "nvfp4", "full_precision_matrix_mult": true}'
    assert size("nvfp4") == packed + 4 + len('{"format": "nvfp4"}')
    assert size("nvfp4_w4a16") == packed + len(w4a16)
    assert size("float8_e4m3fn") == 192 * 96 + 4 + 4 + len('{"format": "float8_e4m3fn"}')
    assert size("bf16") == 192 * 96 * 2
    assert size("keep") == 192 * 96 * 4


def test_plans_are_saved_as_json(tmp_path: Path, wan: Inventory) -> None:
    plan = make_plan(get_preset("wan2.2-ti2v-5b").build(), wan)
    plan.save(tmp_path / "plan.json")
    saved = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert saved["bytes_after"] == plan.bytes_after
    assert Recipe.model_validate(saved["recipe"]) == plan.recipe
    assert saved["architecture"]["id"] == "wan-ti2v"
    assert len(saved["layers"]) == len(plan.layers)
    assert saved["layers"][0] == {
        "name": "patch_embedding", "kind": "conv", "shape": [3072, 48, 1, 2, 2],
        "source_dtype": "bfloat16", "format": "keep", "reason": "no rule matches: keep",
        "bytes_before": 2 * (3072 * 48 * 4 + 3072), "bytes_after": 2 * (3072 * 48 * 4 + 3072),
    }  # fmt: skip


MISSPELT = {"pattern": ["blocks.0.ffn.0", "blocks.0.fn.2", "*.nothing"], "format": "nvfp4"}


@pytest.mark.parametrize("architectures", [(), ("wan-ti2v",)])
def test_each_name_of_a_list_must_exist(wan: Inventory, architectures: tuple[str, ...]) -> None:
    recipe = Recipe.model_validate({"rules": [MISSPELT], "architectures": architectures})
    with pytest.raises(PlanError) as caught:
        make_plan(recipe, wan)
    message = str(caught.value)
    assert "does not have: blocks.0.fn.2; the nearest names are blocks.0.ffn.2" in message
    assert "blocks.0.ffn.0 " not in message and "*.nothing" not in message


def test_an_optional_rule_may_name_layers_that_are_not_there(wan: Inventory) -> None:
    plan = make_plan(Recipe.model_validate({"rules": [{**MISSPELT, "optional": True}]}), wan)
    assert plan.counts()["nvfp4"] == 1


def test_presets_stay_usable_once_saved(wan: Inventory) -> None:
    """A preset is for a family, and some of its models lack layers that it names."""
    recipe = get_preset("smart").build()
    assert all(rule.optional for rule in recipe.rules)
    saved = Recipe.model_validate_json(recipe.to_json())
    assert make_plan(saved, wan).layers == make_plan(recipe, wan).layers
