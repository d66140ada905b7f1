"""``nvfp4 recipe show``."""

from __future__ import annotations

import argparse

from ..options import RecipeChoice
from ..parser import Commands, add_command
from .deliver import add_recipe_output, deliver


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "show",
        run,
        "Show a preset or a recipe file as a recipe, with your changes, and save it.",
        "nvfp4 recipe show wan2.2-14b --set edge_blocks=3 --output mine.json",
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        type=RecipeChoice,
        help="a preset ('nvfp4 recipe list' shows them) or a recipe saved as JSON",
    )
    add_recipe_output(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..choice import chosen_recipe

    return deliver(chosen_recipe(options).to_json(), options)
