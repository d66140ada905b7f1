"""``nvfp4 plan``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .options import add_recipe_options, add_source
from .parser import Commands, add_command

if TYPE_CHECKING:
    from ..planning import Plan


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "plan",
        run,
        "Show the format each layer would get, and the size of the file, without converting.",
        "nvfp4 plan wan2.2_ti2v_5B_fp16.safetensors --preset wan2.2-ti2v-5b",
    )
    add_source(parser)
    add_recipe_options(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..planning import take_inventory
    from ..reports.plan import describe_plan
    from .choice import chosen_plan, chosen_source
    from .output import print_json, print_text

    with chosen_source(options) as source:
        plan = chosen_plan(options, take_inventory(source))
        _check_scales(plan)
        notes = source.notes
    if options.json:
        return print_json({**plan.to_json(), "notes": list(notes)})
    return print_text(describe_plan(plan, notes), options)


def _check_scales(plan: Plan) -> None:
    """Report what is wrong with a file of input scales, as the conversion would."""
    from ..calibration.input_scale.read import read_scales

    policy = plan.recipe.input_scale
    if policy.path:
        stored = read_scales(policy.path, policy.format)
        stored.by_model_name([layer.name for layer in plan.layers])
