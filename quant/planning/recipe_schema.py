"""The JSON Schema of recipe files, from which editors complete and check them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .recipe import Recipe

#: Where the schema that comes with the pack is kept.
SCHEMA_PATH = Path(__file__).parents[2] / "presets" / "schema" / "recipe.schema.json"


def recipe_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of what `load_recipe` reads.

    It holds what the types of `Recipe` and `Rule` say. What only the code can check, such as
    regular expressions, is not in it.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(),
    }


def recipe_schema_text() -> str:
    """Return the schema as the file that comes with the pack holds it."""
    return json.dumps(recipe_schema(), indent=2) + "\n"
