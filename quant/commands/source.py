"""The model that a command's options name."""

from __future__ import annotations

import argparse

from ..planning import Recipe, is_for_edit_2511
from ..sources import TensorSource, open_source
from .choice import chosen_recipe


def chosen_source(options: argparse.Namespace) -> TensorSource:
    """Open the source, completed where asked for.

    A recipe for Qwen-Image-Edit 2511 alone says that a Qwen-Image model without marker is that.
    """
    recipe = _recipe_named(options)
    edit_2511 = recipe is not None and is_for_edit_2511(recipe)
    return open_source(options.source, options.complete_from, edit_2511=edit_2511)


def _recipe_named(options: argparse.Namespace) -> Recipe | None:
    """Return the recipe, where the options name one that needs no model to be known."""
    preset, recipe = getattr(options, "preset", None), getattr(options, "recipe", None)
    return chosen_recipe(options, None) if recipe or preset not in (None, "auto") else None
