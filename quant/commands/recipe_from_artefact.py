"""The recipes that ``nvfp4 recipe`` makes from a checkpoint, a calibration or a sensitivity."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..calibration import load_statistics
from ..calibration.sensitivity import load_sensitivity
from ..errors import FormatError, RecipeError, UsageError
from ..planning import (
    DerivedRecipe,
    Recipe,
    recipe_from_checkpoint,
    recipe_from_sensitivity,
    recipe_from_statistics,
)
from ..planning.recipe_from_sensitivity import DEFAULT_MAX_ERROR
from ..planning.recipe_from_statistics import DEFAULT_MAX_INPUT_ERROR
from ..sources import local_path, open_source
from .choice import base_recipe

_LIMITS = ("max_error", "max_spread", "formats", "other_format")
_BASE = "smart"


def artefact_of(options: argparse.Namespace) -> Path | None:
    """Return the artefact a recipe shall be made from, if there is one."""
    return options.from_stats or options.from_sensitivity or options.from_checkpoint


def artefact_recipe(options: argparse.Namespace) -> DerivedRecipe:
    """Build the recipe; anything wrong with the options is bad usage."""
    if options.from_checkpoint:
        if options.preset or options.recipe or options.setting:
            raise UsageError("--from-checkpoint takes no preset or recipe: all is as in the file")
        _require_no(options, *_LIMITS)
        path = local_path(options.from_checkpoint)
        with open_source(path) as checkpoint:
            derived = recipe_from_checkpoint(checkpoint, path.stem)
    else:
        try:
            derived = _by_limits(options, base_recipe(options, None, otherwise=_BASE))
        except (RecipeError, FormatError) as error:
            raise UsageError(str(error)) from error
    return derived


def require_no_limits(options: argparse.Namespace) -> None:
    """Refuse limits where there is nothing they could apply to."""
    _require_no(options, *_LIMITS)


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
            raise UsageError(f"--{name.replace('_', '-')} has no use here")


def _fraction(text: str | None) -> float | None:
    """Return 0.08 for ``8%`` or ``0.08``."""
    if text is None:
        return None
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        raise UsageError(f"--max-error {text!r} is not of the form 8%") from None
    return number / 100 if text.strip().endswith("%") else number
