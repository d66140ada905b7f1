"""``nvfp4 plan``."""

from __future__ import annotations

import argparse

from ..describe import describe_plan
from ..planning import take_inventory
from ..sources import open_source
from .choice import chosen_plan
from .output import print_json


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    with open_source(options.source) as source:
        plan = chosen_plan(options, take_inventory(source))
        notes = source.notes
    if options.json:
        return print_json({**plan.to_json(), "notes": list(notes)})
    print(describe_plan(plan, notes))
    return 0
