"""Recipes: validation, patterns, rule lines, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nvfp4_foundry.quant.errors import RecipeError
from nvfp4_foundry.quant.planning import (
    Layer,
    Recipe,
    Rule,
    get_preset,
    load_presets,
    load_recipe,
    parse_rule_line,
    parse_rule_lines,
)
from nvfp4_foundry.quant.planning.inventory import BlockPosition, Kind
from nvfp4_foundry.quant.planning.recipe import validated
from nvfp4_foundry.quant.sources import TensorInfo


def layer(
    name: str,
    block: tuple[int, int] | None = None,
    kind: Kind = "linear",
    shape: tuple[int, ...] = (64, 64),
) -> Layer:
    position = BlockPosition("blocks", *block) if block else None
    return Layer(name, kind, TensorInfo(f"{name}.weight", shape, torch.bfloat16), block=position)


@pytest.mark.parametrize(
    ("data", "field", "message"),
    [
        ({"default": "fp5"}, "default", "unknown format 'fp5'; the formats are nvfp4"),
        ({"rounding": "best"}, "rounding", "unknown rounding 'best'; the roundings are max"),
        ({"input_scale": "big"}, "input_scale", "cannot read the input scale policy 'big'"),
        ({"input_scale": "p101"}, "input_scale", "percentile"),
        ({"headroom": 0.5}, "headroom", "greater than or equal to 1"),
        ({"headroom": float("inf")}, "headroom", "finite"),
        ({"headroom": float("nan")}, "headroom", ""),
        ({"version": 99}, "version", "newer than NVFP4 Foundry"),
        ({"colour": "red"}, "colour", "not permitted"),
        ({"rules": 3}, "rules", ""),
        ({"rules": [{"pattern": "*"}]}, "rules.0.format", "required"),
        ({"rules": [{"format": "nvfp5"}]}, "rules.0.format", "unknown format 'nvfp5'"),
        ({"rules": [{"format": "keep", "patern": "*"}]}, "rules.0.patern", "not permitted"),
        ({"rules": [{"format": "keep", "blocks": "middle"}]}, "rules.0.blocks", "must be any, f"),
        ({"rules": [{"format": "keep", "blocks": "first:"}]}, "rules.0.blocks", "must be any, f"),
        ({"rules": [{"format": "keep", "blocks": "3-1"}]}, "rules.0.blocks", "N up to M"),
        ({"rules": [{"format": "keep", "blocks": "3\n"}]}, "rules.0.blocks", "must be any, first"),
        ({"rules": [{"format": "keep", "pattern": []}]}, "rules.0.pattern", "matches nothing"),
        ({"rules": [{"format": "keep", "kinds": []}]}, "rules.0.kinds", "matches nothing"),
        ({"version": -3}, "version", "start at 1"),
        ({"rules": [{"format": "keep", "blocks": "-1"}]}, "rules.0.blocks", "must be any, first"),
        (
            {"rules": [{"format": "keep", "kinds": ["lin"]}]},
            "rules.0.kinds",
            "Input should be 'linear', 'embedding'",
        ),
        ({"rules": [{"format": "keep", "min_size": -1}]}, "rules.0.min_size", "greater than"),
        ({"rules": [{"format": "keep", "pattern": "re:("}]}, "pattern", "not a regular expression"),
        ({"rules": [{"format": "keep", "pattern": ""}]}, "pattern", "an empty pattern"),
        ({"rules": [{"format": "keep", "pattern": ["a", ""]}]}, "pattern", "an empty pattern"),
    ],
)
def test_validation_is_one_line_naming_the_field(
    data: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        validated(Recipe, data, "recipe mine.json")
    text = str(caught.value)
    assert text.startswith("recipe mine.json: ")
    assert field in text
    assert message in text
    assert "\n" not in text


def test_several_problems_are_all_named() -> None:
    with pytest.raises(RecipeError) as caught:
        validated(Recipe, {"default": "x", "rules": [{"format": "y"}]}, "recipe r")
    assert "default: " in str(caught.value)
    assert "rules.0.format: " in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*", ["a", "blocks.0.q"], []),
        ("blocks.*", ["blocks.0.q"], ["blocks", "vace_blocks.0.q"]),
        ("*.q", ["blocks.0.q", "a.q"], ["q", "blocks.0.q.x"]),
        ("blocks.[01].q", ["blocks.0.q", "blocks.1.q"], ["blocks.2.q", "blocks.10.q"]),
        ("blocks.?.q", ["blocks.7.q"], ["blocks.17.q"]),
        ("Blocks.*", [], ["blocks.0.q"]),
        (("a", "*.b"), ["a", "x.b"], ["b"]),
        (r"re:blocks\.\d+\.(q|k)", ["blocks.0.q", "blocks.12.k"], ["blocks.0.qq", "x.blocks.0.q"]),
        (("re:a+", "b"), ["aaa", "b"], ["ab"]),
    ],
)
def test_patterns(pattern: str | tuple[str, ...], matching: list[str], other: list[str]) -> None:
    rule = Rule(pattern=pattern, format="nvfp4")
    assert [n for n in matching + other if rule.matches(layer(n))] == matching


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ("any", [0, 1, 2, 3, 4]),
        ("first:2", [0, 1]),
        ("first:0", []),
        ("first:9", [0, 1, 2, 3, 4]),
        ("last:2", [3, 4]),
        ("last:0", []),
        ("last:9", [0, 1, 2, 3, 4]),
        ("3", [3]),
        ("1-3", [1, 2, 3]),
        ("7", []),
    ],
)
def test_block_ranges(blocks: str, expected: list[int]) -> None:
    rule = Rule(blocks=blocks, format="nvfp4")
    assert [i for i in range(5) if rule.matches(layer("x", (i, 5)))] == expected
    assert not rule.matches(layer("x"))


def test_kinds_default_to_what_the_format_is_for() -> None:
    norm, linear = layer("n", kind="norm", shape=(64,)), layer("l")
    assert [Rule(format="nvfp4").matches(la) for la in (norm, linear)] == [False, True]
    assert [Rule(format="bf16").matches(la) for la in (norm, linear)] == [True, True]
    chosen = Rule(format="bf16", kinds=("norm",))
    assert [chosen.matches(la) for la in (norm, linear)] == [True, False]


def test_min_size() -> None:
    rule = Rule(format="nvfp4", min_size=4096)
    assert rule.matches(layer("x", shape=(64, 64)))
    assert not rule.matches(layer("x", shape=(64, 63)))


@pytest.mark.parametrize(
    ("line", "pattern", "blocks", "fmt"),
    [
        ("blocks.*.ffn.2 = bf16", "blocks.*.ffn.2", None, "bf16"),
        ("  * @ first:2=keep ", "*", "first:2", "keep"),
        ("*.v @ 3-7 = nvfp4_w4a16", "*.v", "3-7", "nvfp4_w4a16"),
        ("*@any = float8_e4m3fn", "*", "any", "float8_e4m3fn"),
        ("re:.*(?=v).  = fp16", "re:.*(?=v).", None, "fp16"),
    ],
)
def test_rule_lines(line: str, pattern: str, blocks: str | None, fmt: str) -> None:
    rule = parse_rule_line(line)
    assert (rule.pattern, rule.blocks, rule.format) == (pattern, blocks, fmt)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("blocks.*", "must have the form 'pattern = format'"),
        ("= nvfp4", "must have the form"),
        ("blocks.* =", "must have the form"),
        ("blocks.* = fp4", "format: unknown format 'fp4'"),
        ("blocks.* @ third = keep", "with N up to M, not 'third'"),
        ("@ first:2 = keep", "an empty pattern"),
        ("re:[ = keep", "not a regular expression"),
    ],
)
def test_bad_rule_lines_are_quoted(line: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_rule_lines(f"* = keep\n{line}\n")
    assert repr(line) in str(caught.value)
    assert message in str(caught.value)


def test_rule_lines_skip_blanks_and_comments() -> None:
    rules = parse_rule_lines("\n# a comment\n  a = keep\n\n\tb = bf16\r\n")
    assert [(r.pattern, r.format) for r in rules] == [("a", "keep"), ("b", "bf16")]
    assert parse_rule_lines("") == ()


rules = st.builds(
    Rule,
    pattern=st.sampled_from(["*", "blocks.*", "re:a|b", ("a", "b.*")]),
    kinds=st.sampled_from([None, ("linear",), ("norm", "conv")]),
    blocks=st.sampled_from([None, "any", "first:3", "last:1", "4", "2-5"]),
    min_size=st.integers(0, 10**9),
    format=st.sampled_from(["nvfp4", "nvfp4_w4a16", "float8_e4m3fn", "bf16", "keep"]),
    why=st.text(),
)
recipes = st.builds(
    Recipe,
    name=st.text(),
    description=st.text(),
    architectures=st.sampled_from([(), ("wan-t2v", "wan")]),
    rules=st.lists(rules, max_size=4).map(tuple),
    default=st.sampled_from(["keep", "bf16", "nvfp4"]),
    input_scale=st.sampled_from(["amax", "p99.9", "dynamic", "fixed=0.01", "amax*2"]),
    headroom=st.floats(1, 1e6),
)


@given(recipe=recipes)
def test_json_round_trip(recipe: Recipe) -> None:
    assert validated(Recipe, json.loads(recipe.to_json()), "recipe") == recipe
    # what goes into a checkpoint's header
    assert validated(Recipe, recipe.model_dump(mode="json", exclude_defaults=True), "r") == recipe


@pytest.mark.parametrize("name", load_presets())
def test_a_saved_preset_loads_again(tmp_path: Path, name: str) -> None:
    recipe = get_preset(name).build().with_rules(parse_rule_lines("*.v @ last:1 = fp16"))
    path = tmp_path / "recipe.json"
    path.write_text(recipe.to_json(), encoding="utf-8")
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xff", "cannot read recipe"),
        (b"[]", "recipe.json: recipe: "),
    ],
)
def test_unreadable_recipes(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read recipe"):
        load_recipe(tmp_path / "none.json")


def test_with_numbers_keeps_what_is_not_given() -> None:
    recipe = Recipe(headroom=2.0, input_scale="p99")
    assert recipe.with_numbers() == recipe
    changed = recipe.with_numbers(input_scale="dynamic")
    assert (changed.input_scale.kind, changed.headroom) == ("dynamic", 2.0)
    assert changed.rounding == "weighted"
    with pytest.raises(RecipeError, match="headroom"):
        recipe.with_numbers(input_scale="amax*0.1")


def test_recipes_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("saved", "edit", "expected"),
    [
        ({"input_scale": "amax*3"}, {}, ("amax", 3.0)),
        ({"input_scale": "amax*3", "headroom": 8.0}, {}, ("amax", 3.0)),
        ({"headroom": 8.0}, {}, ("amax", 8.0)),
        ({"input_scale": "amax*3"}, {"input_scale": "p99"}, ("p99", 4.0)),
        ({"input_scale": "amax*3"}, {"input_scale": "amax*5"}, ("amax", 5.0)),
        ({"headroom": 8.0}, {"input_scale": "amax*5"}, ("amax", 5.0)),
        ({"input_scale": "file=/tmp/x*2*3"}, {}, ("file=/tmp/x*2*3.0", 3.0)),
        ({"input_scale": "dynamic", "headroom": 2.0}, {"input_scale": "amax"}, ("amax", 2.0)),
    ],
)
def test_policies_survive_saving_and_editing(
    saved: dict[str, Any], edit: dict[str, Any], expected: tuple[str, float]
) -> None:
    recipe = Recipe.model_validate(saved).with_numbers(**edit)
    again = Recipe.model_validate_json(recipe.to_json())
    assert again == recipe
    assert (again.input_scale.text, again.input_scale.headroom) == expected


def test_an_empty_fallback_is_none() -> None:
    rule = Rule.model_validate({"format": "nvfp4", "fallback": ""})
    assert rule.fallback is None
