"""``nvfp4 plan``."""

from __future__ import annotations

import argparse

from ..calibration.input_scale.read import read_scales
from ..planning import Plan, take_inventory
from ..reports.plan import describe_plan
from .choice import chosen_plan
from .output import print_json
from .source import chosen_source


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    with chosen_source(options) as source:
        plan = chosen_plan(options, take_inventory(source))
        _check_scales(plan)
        notes = source.notes
    if options.json:
        return print_json({**plan.to_json(), "notes": list(notes)})
    print(describe_plan(plan, notes))
    return 0


def _check_scales(plan: Plan) -> None:
    """Say now what is wrong with a file of input scales, as the conversion would."""
    policy = plan.recipe.input_scale
    if policy.path:
        stored = read_scales(policy.path, policy.format)
        stored.by_model_name([layer.name for layer in plan.layers])
