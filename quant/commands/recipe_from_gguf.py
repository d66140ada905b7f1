"""The recipe that ``nvfp4 recipe --from-gguf`` describes."""

from __future__ import annotations

import argparse

from ..derive import DerivedRecipe, GgufMapping, recipe_from_gguf
from ..errors import RecipeError, UsageError
from ..planning import Inventory, take_inventory
from ..sources import local_path, open_source

_OPTIONS = ("bits_limit", "higher", "edge_blocks", "edge_format")


def gguf_recipe(options: argparse.Namespace) -> DerivedRecipe:
    """Build the recipe."""
    if options.preset or options.recipe or options.setting:
        raise UsageError("--from-gguf makes a recipe of its own: leave out --preset and --recipe")
    given = {name: getattr(options, name) for name in _OPTIONS}
    try:
        mapping = GgufMapping(**{name: value for name, value in given.items() if value is not None})
    except RecipeError as error:
        raise UsageError(str(error)) from error
    return recipe_from_gguf(local_path(options.from_gguf), mapping, _target(options))


def require_no_gguf_options(options: argparse.Namespace) -> None:
    """Refuse the options of `gguf_recipe` where there is no GGUF they could belong to."""
    for name in (*_OPTIONS, "target_model"):
        if getattr(options, name) is not None:
            option = "--for" if name == "target_model" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} belongs to --from-gguf")


def _target(options: argparse.Namespace) -> Inventory | None:
    if options.target_model is None:
        return None
    with open_source(options.target_model) as source:
        return take_inventory(source)
