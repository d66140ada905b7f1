"""``nvfp4 recipe``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..calibration import load_statistics
from ..calibration.sensitivity import load_sensitivity
from ..errors import FormatError, RecipeError, UsageError
from ..planning import (
    DerivedRecipe,
    Recipe,
    load_presets,
    recipe_from_checkpoint,
    recipe_from_sensitivity,
    recipe_from_statistics,
    save_recipe,
)
from ..planning.recipe_from_sensitivity import DEFAULT_MAX_ERROR
from ..planning.recipe_from_statistics import DEFAULT_MAX_INPUT_ERROR
from ..planning.recipe_schema import recipe_schema_text
from ..sources import PrefixedSource, find_prefix, open_tensors
from .choice import base_recipe, chosen_recipe, edited
from .output import print_json
from .recipe_from_gguf import gguf_recipe, require_no_gguf_options
from .targets import require_free

_BASE = "smart"


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if options.schema:
        print(recipe_schema_text(), end="")
        return 0
    if options.from_gguf is None:
        require_no_gguf_options(options)
    sources = [
        options.from_checkpoint, options.from_stats, options.from_sensitivity, options.from_gguf
    ]  # fmt: skip
    derived_from = next((path for path in sources if path), None)
    if not derived_from and not options.preset and not options.recipe:
        if options.output or options.setting or options.rules:
            raise UsageError("give --preset, --recipe or --from-... to build a recipe")
        return _list_presets(options)
    if options.preset == "auto":
        raise UsageError("--preset auto needs a model; it works with plan and quantize")
    if options.output:
        read = tuple(Path(path) for path in (derived_from, options.recipe) if path)
        require_free(options.output, read, options.overwrite)
    notes: tuple[str, ...] = ()
    if derived_from:
        derived = _derived(options)
        recipe, notes = _edited(derived.recipe, options), derived.notes
    else:
        recipe = chosen_recipe(options, None)
    if options.output:
        save_recipe(recipe, options.output)
    if options.json or not options.output:
        print(recipe.to_json())
    else:
        print("\n".join([*notes, f"wrote {options.output}"]))
    return 0


def _derived(options: argparse.Namespace) -> DerivedRecipe:
    """Return a recipe made from an artefact; anything wrong with the options is bad usage."""
    if options.from_gguf:
        return gguf_recipe(options)
    if options.from_checkpoint:
        if options.preset or options.recipe:
            raise UsageError("--from-checkpoint takes no preset or recipe: all is as in the file")
        with open_tensors(options.from_checkpoint) as file:
            prefix = find_prefix(file.tensors)
            model = PrefixedSource(file, prefix) if prefix else file
            return recipe_from_checkpoint(model, options.from_checkpoint.stem)
    try:
        base = base_recipe(options, None, otherwise=_BASE)
        max_error = _fraction(options.max_error)
        if options.from_sensitivity:
            return recipe_from_sensitivity(
                load_sensitivity(options.from_sensitivity),
                base,
                DEFAULT_MAX_ERROR if max_error is None else max_error,
                [name.strip() for name in options.formats.split(",")] if options.formats else (),
                options.other_format or "keep",
            )
        return recipe_from_statistics(
            load_statistics(options.from_stats),
            base,
            DEFAULT_MAX_INPUT_ERROR if max_error is None else max_error,
            options.max_spread,
            options.other_format or "nvfp4_w4a16",
        )
    except (RecipeError, FormatError) as error:
        raise UsageError(str(error)) from error


def _edited(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    try:
        return edited(recipe, options)
    except RecipeError as error:
        raise UsageError(str(error)) from error


def _fraction(text: str | None) -> float | None:
    """Return 0.08 for ``8%`` or ``0.08``."""
    if text is None:
        return None
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        raise UsageError(f"--max-error {text!r} is not of the form 8%") from None
    return number / 100 if text.strip().endswith("%") else number


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
