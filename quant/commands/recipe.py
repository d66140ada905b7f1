"""``nvfp4 recipe``."""

from __future__ import annotations

import argparse

from ..errors import UsageError
from ..planning import Recipe, load_presets, save_recipe
from ..planning.recipe_schema import recipe_schema_text
from .choice import chosen_recipe
from .output import print_json
from .recipe_from_artefact import artefact_of, artefact_recipe, require_no_artefact_options
from .targets import require_free


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if options.schema:
        print(recipe_schema_text(), end="")
        return 0
    if options.output:
        read = tuple(path for path in (artefact_of(options), options.recipe) if path)
        require_free(options.output, read, options.overwrite)
    if artefact_of(options):
        return _deliver(artefact_recipe(options), options)
    require_no_artefact_options(options)
    if not options.preset and not options.recipe:
        if options.output or options.setting or options.rules or options.gpu:
            raise UsageError("give --preset, --recipe or --from-... to build a recipe")
        return _list_presets(options)
    return _deliver(chosen_recipe(options, None), options)


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
