"""Read and write recipes as JSON files."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import RecipeError
from ..files.write import write_text
from .recipe import Recipe, validated


def load_recipe(path: Path) -> Recipe:
    """Read a recipe saved as JSON.

    Raises:
        RecipeError: the file cannot be read, is not JSON, or holds an invalid recipe.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read recipe {path}: {error}") from error
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(f"recipe {path} is not JSON: {error}") from error
    return validated(Recipe, data, f"recipe {path}")


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as JSON with all fields. Replaces an existing file.

    Raises:
        FileError: the file cannot be written.
    """
    write_text(path, f"{recipe.to_json()}\n")
