"""``nvfp4 inspect``."""

from __future__ import annotations

import argparse

from ..checkpoint import inspect_checkpoint
from ..reports.checkpoint import describe_summary
from .output import print_json


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    summary = inspect_checkpoint(options.path)
    if options.json:
        return print_json(summary.to_json())
    print(describe_summary(summary))
    return 0
