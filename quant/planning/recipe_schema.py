"""The JSON Schema of recipe files, from which editors complete and check them."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..formats import FORMATS
from ..rounding import ROUNDINGS
from .inventory import KINDS
from .recipe import BLOCKS, Recipe, Rule

#: Where the schema that comes with the pack is kept.
SCHEMA_PATH = Path(__file__).parents[2] / "presets" / "schema" / "recipe.schema.json"

_ENTRY = re.compile(r"^ {4}(\w+): (.+?)(?=^ {4}\w|\Z)", re.MULTILINE | re.DOTALL)


def recipe_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of what `load_recipe` reads.

    Field descriptions are those of the classes' docstrings. What only the code can check, such
    as regular expressions, is not in it.
    """
    schema = Recipe.model_json_schema()
    rule = schema["$defs"]["Rule"]
    for fields, model in ((schema["properties"], Recipe), (rule["properties"], Rule)):
        for name, text in _descriptions(model).items():
            fields[name]["description"] = text
    _restrict(rule["properties"]["format"], list(FORMATS))
    _restrict(schema["properties"]["default"], list(FORMATS))
    _restrict(schema["properties"]["rounding"], list(ROUNDINGS))
    _kinds_of(rule)["items"]["enum"] = list(KINDS)
    _texts_of(rule["properties"]["blocks"])["pattern"] = f"^({BLOCKS.pattern})$"
    schema["properties"]["$schema"] = {"type": "string", "description": "This schema."}
    schema["description"] = (inspect.getdoc(Recipe) or "").partition("\n")[0]
    rule["description"] = (inspect.getdoc(Rule) or "").partition("\n")[0]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "NVFP4 Foundry recipe",
    }


def recipe_schema_text() -> str:
    """Return the schema as the file that comes with the pack holds it."""
    return json.dumps(recipe_schema(), indent=2) + "\n"


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return what the docstring's ``Attributes`` say of each field, in one line each."""
    entries = (inspect.getdoc(model) or "").partition("Attributes:\n")[2]
    found = ((m[1], " ".join(m[2].split())) for m in _ENTRY.finditer(entries))
    return {name: text.replace("``", "") for name, text in found if name in model.model_fields}


def _restrict(field: dict[str, Any], values: list[str]) -> None:
    field["enum"] = values


def _kinds_of(rule: dict[str, Any]) -> dict[str, Any]:
    return next(o for o in rule["properties"]["kinds"]["anyOf"] if o["type"] == "array")


def _texts_of(field: dict[str, Any]) -> dict[str, Any]:
    return next(option for option in field["anyOf"] if option["type"] == "string")
