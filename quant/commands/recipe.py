"""``nvfp4 recipe``."""

from __future__ import annotations

import argparse
import sys

from ..errors import RecipeError, UsageError
from ..planning import DerivedRecipe, Recipe, load_presets, save_recipe
from ..planning.recipe_schema import recipe_schema_text
from .choice import chosen_recipe, edited
from .output import print_json
from .recipe_from_artefact import artefact_of, artefact_recipe, require_no_limits
from .recipe_from_gguf import gguf_recipe, require_no_gguf_options
from .targets import require_free


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if options.schema:
        print(recipe_schema_text(), end="")
        return 0
    if options.output:
        read = tuple(path for path in (artefact_of(options), options.recipe) if path)
        require_free(options.output, read, options.overwrite)
    if options.from_gguf is not None:
        require_no_limits(options)
        return _deliver(_edited(gguf_recipe(options), options), options)
    require_no_gguf_options(options)
    if artefact_of(options):
        return _deliver(_edited(artefact_recipe(options), options), options)
    require_no_limits(options)
    if not options.preset and not options.recipe:
        if options.output or options.setting or options.rules or options.gpu:
            raise UsageError("give --preset, --recipe or --from-... to build a recipe")
        return _list_presets(options)
    return _deliver(chosen_recipe(options, None), options)


def _edited(derived: DerivedRecipe, options: argparse.Namespace) -> Recipe:
    """Say what the user should know of a recipe, and apply the edits beside it."""
    for note in derived.notes:
        print(f"note: {note}", file=sys.stderr)
    try:
        return edited(derived.recipe, options)
    except RecipeError as error:
        raise UsageError(str(error)) from error


def _deliver(recipe: Recipe, options: argparse.Namespace) -> int:
    """Save the recipe, or print it."""
    if options.output:
        save_recipe(recipe, options.output)
    if options.json or not options.output:
        print(recipe.to_json())
    else:
        print(f"wrote {options.output}")
    return 0


def _list_presets(options: argparse.Namespace) -> int:
    presets = load_presets()
    if options.json:
        return print_json({"presets": [p.model_dump(mode="json") for p in presets.values()]})
    for preset in presets.values():
        print(f"{preset.name}: {preset.description}")
        for setting in preset.settings:
            allowed = (
                ", ".join(setting.choices)
                if setting.type == "choice"
                else f"{setting.min}-{setting.max}"
            )
            print(f"    {setting.name}={setting.default}  ({allowed})")
    return 0
