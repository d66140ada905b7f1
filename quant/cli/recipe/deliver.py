"""What the subcommands share that show or make a recipe: the edits, and where it goes."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ...text import printable
from ..options import add_edits, add_numbers, add_output, add_overwrite, wrong_usage

if TYPE_CHECKING:
    from ...derive import DerivedRecipe
    from ...planning import Rule


def add_recipe_output(parser: argparse.ArgumentParser, *, of_preset: bool = True) -> None:
    """Add what changes a recipe, and where to save it; ``of_preset``: it may have settings."""
    edits = parser.add_argument_group("changes to the recipe")
    add_edits(edits, of_preset=of_preset)
    add_numbers(edits)
    add_output(parser, "FILE", "save the recipe as JSON (default: print it)")
    add_overwrite(parser, "FILE")


def deliver(text: str, options: argparse.Namespace) -> int:
    """Save JSON, or print it; returns the exit code of success."""
    from ..output import print_written, save_text

    if options.output:
        save_text(text, options.output)
    if options.json or not options.output:
        print(printable(text.rstrip()))  # the escapes are those of JSON
    else:
        print_written(options)
    return 0


def deliver_derived(
    derived: DerivedRecipe, options: argparse.Namespace, rules: list[Rule] | None = None
) -> int:
    """Edit a recipe that was made from something, then save or print it.

    What the user should know about it goes to standard error. ``rules``: those of ``--set``;
    None: read them, of a recipe without settings.
    """
    from ..choice import edited, rules_only

    with wrong_usage():
        recipe = edited(
            derived.recipe, options, rules_only(options.edits) if rules is None else rules
        )
    for note in derived.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    return deliver(recipe.to_json(), options)
