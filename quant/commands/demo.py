"""``nvfp4 demo``."""

from __future__ import annotations

import argparse

from ...demo.run import run_demo
from .output import print_json


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    result = run_demo(options.output, quiet=options.json)
    if options.json:
        return print_json(result.to_json())
    print(result.to_text())
    return 0
