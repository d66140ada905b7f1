"""``nvfp4 recipe from-calibration``."""

from __future__ import annotations

import argparse

from ..options import add_recipe_choice, fraction, wrong_usage
from ..parser import Commands, add_command
from ..paths import InputPath
from .deliver import add_recipe_output, deliver_derived


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "from-calibration",
        run,
        "Make a recipe that rounds the inputs of a layer only where a calibration allows it.",
        "nvfp4 recipe from-calibration calibration.safetensors --preset smart --output mine.json",
        "The preset or recipe says which layers are quantized. Layers whose inputs do not keep\n"
        "the limits get --other-format. Layers that were not observed are kept as they are.",
    )
    parser.add_argument("calibration", metavar="FILE", type=InputPath, help="the calibration")
    add_recipe_choice(parser, default="smart")
    parser.add_argument(
        "--max-error",
        metavar="X%",
        type=fraction,
        help="largest relative error of the sampled inputs (default: 12%%)",
    )
    parser.add_argument(
        "--max-spread",
        metavar="X",
        type=float,
        help="largest ratio between the amax of two runs (default: the headroom)",
    )
    parser.add_argument(
        "--other-format",
        metavar="NAME",
        default="nvfp4_w4a16",
        help="the format of layers beyond the limits (default: nvfp4_w4a16)",
    )
    add_recipe_output(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ...calibration import load_statistics
    from ...derive import recipe_from_statistics
    from ...derive.from_calibration import DEFAULT_MAX_INPUT_ERROR
    from ..choice import base_recipe

    statistics = load_statistics(options.calibration)
    with wrong_usage():
        base, rules = base_recipe(options)
        derived = recipe_from_statistics(
            statistics,
            base,
            DEFAULT_MAX_INPUT_ERROR if options.max_error is None else options.max_error,
            options.max_spread,
            options.other_format,
        )
    return deliver_derived(derived, options, rules)
