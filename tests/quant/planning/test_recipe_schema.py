"""The JSON Schema accepts valid recipes, and refuses invalid ones as far as a schema can."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from nvfp4_foundry.quant.errors import RecipeError
from nvfp4_foundry.quant.formats import FORMATS
from nvfp4_foundry.quant.planning import Recipe, Rule, get_preset, load_presets
from nvfp4_foundry.quant.planning.recipe import validated
from nvfp4_foundry.quant.planning.recipe_schema import (
    SCHEMA_PATH,
    recipe_schema,
    recipe_schema_text,
)
from nvfp4_foundry.quant.rounding import ROUNDINGS

WRONG: list[dict[str, Any]] = [
    {"default": "fp5"},
    {"rounding": "best"},
    {"headroom": 0.5},
    {"colour": "red"},
    {"rules": 3},
    {"rules": [{"pattern": "*"}]},
    {"rules": [{"format": "nvfp5"}]},
    {"rules": [{"format": "keep", "patern": "*"}]},
    {"rules": [{"format": "keep", "blocks": "middle"}]},
    {"rules": [{"format": "keep", "kinds": ["linar"]}]},
    {"rules": [{"format": "keep", "min_size": -1}]},
]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_file_is_in_step_with_the_code() -> None:
    """If this fails, write the schema again with ``nvfp4 recipe schema``."""
    assert SCHEMA_PATH.read_text(encoding="utf-8") == recipe_schema_text()


@pytest.mark.parametrize("name", list(load_presets()))
def test_every_presets_recipe_is_valid(validator: Draft202012Validator, name: str) -> None:
    validator.validate(json.loads(get_preset(name).build().to_json()))


@pytest.mark.parametrize("data", WRONG, ids=json.dumps)
def test_what_the_code_refuses_the_schema_refuses(
    validator: Draft202012Validator, data: dict[str, Any]
) -> None:
    assert not validator.is_valid(data)
    with pytest.raises(RecipeError):
        validated(Recipe, data, "recipe")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"$schema": "recipe.schema.json", "default": "nvfp4"},
        {"rules": [{"format": "bf16", "blocks": "first:2"}, {"format": "keep", "blocks": "3-4"}]},
        {"rules": [{"format": "bf16", "pattern": ["a", "re:b.*"], "kinds": ["linear", "norm"]}]},
        {"rules": [{"format": "bf16", "blocks": None, "kinds": None, "optional": True}]},
    ],
    ids=json.dumps,
)
def test_what_the_schema_admits_the_code_reads(
    validator: Draft202012Validator, data: dict[str, Any]
) -> None:
    validator.validate(data)
    assert validated(Recipe, data, "recipe")


def test_every_name_is_offered_and_every_field_explained() -> None:
    schema = recipe_schema()
    rule = schema["$defs"]["Rule"]["properties"]
    assert set(rule["format"]["enum"]) == set(schema["properties"]["default"]["enum"])
    assert set(rule["format"]["enum"]) == set(FORMATS)
    assert set(schema["properties"]["rounding"]["enum"]) == set(ROUNDINGS)
    assert set(rule) == set(Rule.model_fields)
    assert set(schema["properties"]) == {*Recipe.model_fields, "$schema"}
    for field in (*schema["properties"].values(), *rule.values()):
        assert len(field["description"]) > 8
