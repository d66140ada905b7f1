"""Read and write recipes as JSON files."""

from __future__ import annotations

from pathlib import Path

from ..errors import RecipeError
from ..files.json_file import LARGEST_SMALL, parse_json
from ..files.plain_file import read_text_file
from ..files.write import write_text
from .recipe import Recipe, validated


def load_recipe(path: Path) -> Recipe:
    """Read a recipe saved as JSON.

    Raises:
        RecipeError: the file cannot be read, is not JSON, or holds an invalid recipe.
    """
    try:
        text = read_text_file(path, LARGEST_SMALL)
    except (OSError, ValueError) as error:
        raise RecipeError(f"cannot read recipe {path}: {error}") from error
    try:
        data = parse_json(text, unique_names=True, largest=LARGEST_SMALL)
    except ValueError as error:
        raise RecipeError(f"recipe {path} is not JSON: {error}") from error
    return validated(Recipe, data, f"recipe {path}")


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe as JSON with all fields. Replaces an existing file.

    Raises:
        FileError: the file cannot be written.
    """
    write_text(path, f"{recipe.to_json()}\n")
