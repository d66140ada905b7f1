"""``nvfp4 recipe from-sensitivity``."""

from __future__ import annotations

import argparse

from ..options import add_recipe_choice, fraction, names, wrong_usage
from ..parser import Commands, add_command
from ..paths import InputPath
from .deliver import add_recipe_output, deliver_derived


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "from-sensitivity",
        run,
        "Make a recipe that gives each layer the smallest format with a small measured error.",
        "nvfp4 recipe from-sensitivity sensitivity.json --preset all --max-error 7% "
        "--output mine.json",
        "The preset or recipe says which layers are quantized.",
    )
    parser.add_argument("sensitivity", metavar="FILE", type=InputPath, help="the sensitivity")
    add_recipe_choice(parser, default="smart")
    parser.add_argument(
        "--max-error",
        metavar="X%",
        type=fraction,
        help="largest error of a layer (default: 8%%)",
    )
    parser.add_argument(
        "--formats",
        metavar="A,B",
        type=names,
        default=(),
        help="the formats to choose from (default: all that were measured)",
    )
    parser.add_argument(
        "--other-format",
        metavar="NAME",
        default="keep",
        help="the format of layers whose error is larger in all of them (default: keep)",
    )
    add_recipe_output(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ...derive import recipe_from_sensitivity
    from ...derive.from_sensitivity import DEFAULT_MAX_ERROR
    from ...sensitivity.artefact import load_sensitivity
    from ..choice import base_recipe

    sensitivity = load_sensitivity(options.sensitivity.path)
    with wrong_usage():
        base, rules = base_recipe(options)
        derived = recipe_from_sensitivity(
            sensitivity,
            base,
            DEFAULT_MAX_ERROR if options.max_error is None else options.max_error,
            options.formats,
            options.other_format,
        )
    return deliver_derived(derived, options, rules)
