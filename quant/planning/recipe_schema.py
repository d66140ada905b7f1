"""The JSON Schema of recipe files, with which editors complete and check them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .recipe import Recipe

#: The schema file that comes with the pack.
SCHEMA_PATH = Path(__file__).parents[2] / "presets" / "schema" / "recipe.schema.json"


def recipe_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of the files that `load_recipe` reads.

    It follows the types of `Recipe` and `Rule`. It does not hold checks that only code can do,
    such as whether a regular expression compiles.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(),
    }


def recipe_schema_text() -> str:
    """Return the text of the schema file that comes with the pack."""
    return json.dumps(recipe_schema(), indent=2) + "\n"
