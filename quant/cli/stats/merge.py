"""``nvfp4 stats merge``."""

from __future__ import annotations

import argparse

from ..options import add_output, add_overwrite
from ..parser import Commands, add_command
from ..paths import MergedPath
from .merged import add_calibrations, merged, print_calibration


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "merge",
        run,
        "Merge calibrations of one model into one file.",
        "nvfp4 stats merge monday.safetensors tuesday.safetensors --output both.safetensors",
    )
    add_calibrations(parser, MergedPath)
    add_output(
        parser,
        "OUT",
        "the merged calibration; with --overwrite it may be one of the files",
        required=True,
    )
    add_overwrite(parser, "OUT")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ...calibration import save_statistics

    statistics = merged(options)
    save_statistics(statistics, options.output)
    return print_calibration(statistics, options)
