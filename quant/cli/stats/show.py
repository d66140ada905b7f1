"""``nvfp4 stats show``."""

from __future__ import annotations

import argparse

from ..parser import Commands, add_command
from .merged import add_calibrations, merged, print_calibration


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "show",
        run,
        "Show what a calibration holds; several files are shown as if they were merged.",
        "nvfp4 stats show calibration.safetensors",
    )
    add_calibrations(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    return print_calibration(merged(options), options)
