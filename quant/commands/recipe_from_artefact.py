"""The recipes that ``nvfp4 recipe`` makes from something else than a preset."""

from __future__ import annotations

import argparse
import sys

from ..calibration import load_statistics
from ..derive import (
    DerivedRecipe,
    recipe_from_checkpoint,
    recipe_from_sensitivity,
    recipe_from_statistics,
)
from ..derive.from_calibration import DEFAULT_MAX_INPUT_ERROR
from ..derive.from_sensitivity import DEFAULT_MAX_ERROR
from ..errors import FormatError, RecipeError, UsageError
from ..planning import Recipe
from ..sensitivity.artefact import load_sensitivity
from ..sources import local_path, open_source
from .choice import base_recipe, edited
from .recipe_from_gguf import gguf_recipe, require_no_gguf_options

#: Options about measurements, and what they belong to.
_LIMITS = {
    "max_error": "--from-stats and --from-sensitivity",
    "max_spread": "--from-stats",
    "formats": "--from-sensitivity",
    "other_format": "--from-stats and --from-sensitivity",
}
_BASE = "smart"


def has_artefact(options: argparse.Namespace) -> bool:
    """Whether a recipe shall be made from something else than a preset or a recipe."""
    return bool(options.from_gguf or _origins(options))


def _origins(options: argparse.Namespace) -> list[object]:
    origins = (options.from_stats, options.from_sensitivity, options.from_checkpoint)
    return [path for path in origins if path]


def artefact_recipe(options: argparse.Namespace) -> Recipe:
    """Build the recipe; what the user should know of it goes to standard error.

    Raises:
        UsageError: options that make no sense for it.
    """
    if options.from_gguf and _origins(options):
        raise UsageError("--from-gguf: not allowed with another --from-...")
    derived = _derived(options)
    for note in derived.notes:
        print(f"note: {note}", file=sys.stderr)
    try:
        return edited(derived.recipe, options)
    except RecipeError as error:
        raise UsageError(str(error)) from error


def require_no_artefact_options(options: argparse.Namespace) -> None:
    """Refuse what belongs to an artefact where there is none."""
    require_no_gguf_options(options)
    _require_no(options, *_LIMITS)


def _derived(options: argparse.Namespace) -> DerivedRecipe:
    if options.from_gguf:
        _require_no(options, *_LIMITS)
        return gguf_recipe(options)
    require_no_gguf_options(options)
    if not options.from_checkpoint:
        try:
            return _by_limits(options, base_recipe(options, None, otherwise=_BASE))
        except (RecipeError, FormatError) as error:
            raise UsageError(str(error)) from error
    if options.preset or options.recipe or options.setting:
        raise UsageError("--from-checkpoint takes no preset or recipe: all is as in the file")
    _require_no(options, *_LIMITS)
    path = local_path(options.from_checkpoint)
    if path.suffix.lower() == ".gguf":
        raise UsageError(f"{path} is a GGUF: use --from-gguf")
    with open_source(path) as checkpoint:
        return recipe_from_checkpoint(checkpoint, path.stem)


def _by_limits(options: argparse.Namespace, base: Recipe) -> DerivedRecipe:
    max_error = _fraction(options.max_error)
    if options.from_sensitivity:
        _require_no(options, "max_spread")
        return recipe_from_sensitivity(
            load_sensitivity(options.from_sensitivity),
            base,
            DEFAULT_MAX_ERROR if max_error is None else max_error,
            [name.strip() for name in options.formats.split(",")] if options.formats else (),
            options.other_format or "keep",
        )
    _require_no(options, "formats")
    return recipe_from_statistics(
        load_statistics(options.from_stats),
        base,
        DEFAULT_MAX_INPUT_ERROR if max_error is None else max_error,
        options.max_spread,
        options.other_format or "nvfp4_w4a16",
    )


def _require_no(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} belongs to {_LIMITS[name]}")


def _fraction(text: str | None) -> float | None:
    """Return 0.08 for ``8%`` or ``0.08``."""
    if text is None:
        return None
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        raise UsageError(f"--max-error {text!r} is not of the form 8%") from None
    return number / 100 if text.strip().endswith("%") else number
