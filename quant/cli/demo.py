"""``nvfp4 demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .parser import Commands, add_command


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "demo",
        run,
        "Calibrate, quantize and compare a tiny trained WAN. Needs no ComfyUI and no downloads.",
        "nvfp4 demo --output demo-output",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=Path("demo-output"),
        help="where to write (default: demo-output); files of an earlier demo are replaced",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ...demo.run import run_demo
    from .output import print_json, print_text

    result = run_demo(options.output, quiet=options.json)
    if options.json:
        return print_json(result.to_json())
    return print_text(result.to_text(), options)
