"""``nvfp4 doctor``."""

from __future__ import annotations

import argparse

from .parser import Commands, add_command


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(
        commands,
        "doctor",
        run,
        "Show what this machine runs natively, and why NVFP4 may not be faster on it.",
        "nvfp4 doctor",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..hardware.machine import examine_machine
    from ..reports.machine import describe_machine
    from .output import print_json, print_text

    machine = examine_machine()
    if options.json:
        return print_json(machine.to_json())
    return print_text(describe_machine(machine), options)
