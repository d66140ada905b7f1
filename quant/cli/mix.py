"""``nvfp4 mix``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..hardware.usual_formats import MIXED
from .options import (
    add_any_architecture,
    add_edits,
    add_output,
    add_overwrite,
    add_plot,
    add_recipe_choice,
    add_source,
    names,
    wrong_usage,
)
from .parser import Commands, add_command
from .paths import InputPath

if TYPE_CHECKING:
    from ..derive import Budget, Mix


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "mix",
        run,
        "Choose the format of each layer by measured sensitivity, for a size, bits or error.",
        "nvfp4 mix model.safetensors --sensitivity sensitivity.json --preset auto "
        "--budget size=4.2GB --output mix.json",
        "Only Linear layers that the preset or recipe quantizes get another format. Without a\n"
        "budget, the mix is as large as the preset. 'nvfp4 quantize --recipe mix.json' uses it.\n"
        "Give a sensitivity that the node Probe Result saved: a mix that is chosen by the errors\n"
        "of single layers can be worse than its preset.",
    )
    add_source(parser)
    parser.add_argument(
        "--sensitivity",
        metavar="FILE",
        type=InputPath,
        required=True,
        help="the sensitivity of the model's layers",
    )
    parser.add_argument(
        "--budget",
        metavar="LIMIT",
        help="size=4.2GB or bits=5.5 (per mixed weight) for the smallest error within it, or "
        "error=3%% for the smallest file within it (default: the size with the preset)",
    )
    parser.add_argument(
        "--formats",
        metavar="A,B",
        type=names,
        help=f"the formats to choose from (default: {','.join(MIXED['blackwell'])}; for Turing and "
        f"Ampere give {','.join(MIXED['turing_ampere'])}; for Ampere, Ada and Hopper with "
        f"--comfyui 0.33 {','.join(MIXED['ampere'])}). nvfp4_w4a16 would replace every nvfp4, "
        "because it is as small and more precise, but it is slower",
    )
    parser.add_argument(
        "--four-bit",
        metavar="SHARE",
        help="keep at least this share of the mixed weights in 4-bit products, e.g. 60%%, the "
        "fastest on Blackwell; for --formats with asym_w4a8_int8 besides nvfp4",
    )
    formats = parser.add_argument_group("which layers are quantized")
    add_recipe_choice(formats)
    add_edits(formats)
    add_any_architecture(formats)
    add_output(parser, "FILE", "save the mix as a recipe")
    add_plot(parser, "draw the error over the size")
    add_overwrite(parser, "an output")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..reports.mix import describe_mix
    from ..reports.pictures.frontier import draw_frontier
    from .library_output import drop_output_of_libraries
    from .output import print_json, print_text, save_picture, save_text

    drop_output_of_libraries()
    mix = _mix(options)
    if options.output:
        save_text(mix.recipe.to_json(), options.output)
    if options.plot:
        save_picture(draw_frontier(mix), options.plot)
    if options.json:
        return print_json(mix.to_json())
    return print_text(describe_mix(mix), options)


def _mix(options: argparse.Namespace) -> Mix:
    from ..derive import mix_plan, with_four_bit
    from ..planning import take_inventory
    from ..sensitivity.artefact import load_sensitivity
    from .choice import chosen_plan, chosen_source

    budget, formats, four_bit = _limits_and_formats(options)
    sensitivity = load_sensitivity(options.sensitivity.path)
    with chosen_source(options) as source:
        inventory = take_inventory(source)
        plan = chosen_plan(options, inventory)
        return mix_plan(
            plan,
            inventory,
            sensitivity,
            with_four_bit(budget, plan.bytes_after, four_bit),
            formats,
            fingerprint=source.fingerprint(),
        )


def _limits_and_formats(
    options: argparse.Namespace,
) -> tuple[Budget | None, tuple[str, ...], float]:
    from ..derive import MIX_FORMATS, parse_budget, parse_share
    from ..formats import get_format

    with wrong_usage():
        budget = parse_budget(options.budget) if options.budget else None
        names = tuple(get_format(name).name for name in options.formats or MIX_FORMATS)
        return budget, names, parse_share(options.four_bit) if options.four_bit else 0.0
