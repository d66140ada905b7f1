"""``nvfp4 doctor``."""

from __future__ import annotations

import argparse

from ..hardware.machine import examine_machine
from ..reports.machine import describe_machine
from .output import print_json


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    machine = examine_machine()
    if options.json:
        return print_json(machine.to_json())
    print(describe_machine(machine))
    return 0
