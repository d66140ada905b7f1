"""``nvfp4 recipe``."""

from __future__ import annotations

import argparse

from ..errors import RecipeError, UsageError
from ..planning import load_presets
from .choice import chosen_recipe
from .output import print_json


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if not options.preset and not options.recipe:
        if options.output or options.setting or options.rules or options.gpu:
            raise UsageError("give --preset or --recipe to build a recipe")
        return _list_presets(options)
    if options.preset == "auto":
        raise UsageError("--preset auto needs a model; it works with plan and quantize")
    recipe = chosen_recipe(options, None)
    if options.output:
        if options.output.exists() and not options.overwrite:
            raise RecipeError(f"{options.output} exists; use --overwrite to replace it")
        options.output.write_text(recipe.to_json() + "\n", encoding="utf-8")
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
