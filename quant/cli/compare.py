"""``nvfp4 compare``."""

from __future__ import annotations

import argparse

from .options import add_layout
from .parser import Commands, add_command
from .paths import InputPath


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "compare",
        run,
        "Show, layer by layer, how much the weights of two checkpoints of one model differ.",
        "nvfp4 compare model.safetensors model_nvfp4.safetensors",
    )
    parser.add_argument("a", metavar="A", type=InputPath, help="the reference, quantized or not")
    parser.add_argument(
        "b", metavar="B", type=InputPath, help="the checkpoint to compare with the reference"
    )
    add_layout(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..checkpoint import compare_checkpoints
    from ..reports.comparison import describe_comparison
    from .output import print_json, print_text, progress

    with progress("compare", options) as on_progress:
        comparison = compare_checkpoints(options.a, options.b, on_progress, options.layout)
    if options.json:
        return print_json(comparison.to_json())
    return print_text(describe_comparison(comparison), options)
