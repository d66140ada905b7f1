"""``nvfp4 recipe``."""

from __future__ import annotations

import argparse

from ..errors import UsageError
from ..planning import load_presets
from ..planning.recipe_schema import recipe_schema_text
from .choice import chosen_recipe
from .output import print_json
from .recipe_from_artefact import artefact_recipe, has_artefact, require_no_artefact_options
from .targets import files_read, require_free

_BUILDING = (
    "preset", "recipe", "setting", "gpu", "rules", "rounding", "input_scale", "headroom"
)  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if options.output:
        require_free(options.output, files_read(options), options.overwrite)
    if options.schema:
        if has_artefact(options) or _builds(options):
            raise UsageError("--schema is of all recipes; it goes with --output only")
        return _deliver(recipe_schema_text(), options)
    if has_artefact(options):
        return _deliver(artefact_recipe(options).to_json(), options)
    require_no_artefact_options(options)
    if options.preset or options.recipe:
        return _deliver(chosen_recipe(options, None).to_json(), options)
    if options.output or _builds(options):
        raise UsageError("give --preset, --recipe or --from-... to build a recipe")
    return _list_presets(options)


def _builds(options: argparse.Namespace) -> bool:
    """Whether there are options that say what a recipe shall be."""
    return any(getattr(options, name) not in (None, []) for name in _BUILDING)


def _deliver(text: str, options: argparse.Namespace) -> int:
    """Save a recipe or the schema, or print it."""
    text = text.rstrip() + "\n"
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    if options.json or not options.output:
        print(text, end="")
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
