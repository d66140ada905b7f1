"""``nvfp4 recipe schema``."""

from __future__ import annotations

import argparse

from ..options import add_output, add_overwrite
from ..parser import Commands, add_command
from .deliver import deliver


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "schema",
        run,
        "Show the JSON Schema of recipe files, by which editors complete and check them.",
        "nvfp4 recipe schema --output recipe.schema.json",
    )
    add_output(parser, "FILE", "save the schema (default: print it)")
    add_overwrite(parser, "FILE")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ...planning.recipe_schema import recipe_schema_text

    return deliver(recipe_schema_text(), options)
