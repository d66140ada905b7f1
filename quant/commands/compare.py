"""``nvfp4 compare``."""

from __future__ import annotations

import argparse

from ..checkpoint import compare_checkpoints
from ..reports.comparison import describe_comparison
from .output import print_json, progress


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    with progress("compare", options) as on_progress:
        comparison = compare_checkpoints(options.a, options.b, on_progress)
    if options.json:
        return print_json(comparison.to_json())
    print(describe_comparison(comparison))
    return 0
