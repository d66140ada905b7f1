"""``nvfp4 inspect``."""

from __future__ import annotations

import argparse

from .options import add_layout
from .parser import Commands, add_command
from .paths import InputPath


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "inspect",
        run,
        "Show the layers, formats and sizes of a model file.",
        "nvfp4 inspect wan2.2_ti2v_5B_nvfp4.safetensors",
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        type=InputPath,
        help="a file, an index.json, a folder, or hf://owner/repo/file",
    )
    add_layout(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..checkpoint import inspect_checkpoint
    from ..reports.checkpoint import describe_summary
    from .output import print_json, print_text

    summary = inspect_checkpoint(options.path, options.layout)
    if options.json:
        return print_json(summary.to_json())
    return print_text(describe_summary(summary), options)
