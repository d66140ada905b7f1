"""``nvfp4 plan``."""

from __future__ import annotations

import argparse

from ..describe import describe_plan
from ..planning import take_inventory
from .choice import chosen_plan
from .output import print_json
from .source import chosen_source


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    with chosen_source(options) as source:
        plan = chosen_plan(options, take_inventory(source))
        notes = source.notes
    if options.json:
        return print_json({**plan.to_json(), "notes": list(notes)})
    print(describe_plan(plan, notes))
    return 0
