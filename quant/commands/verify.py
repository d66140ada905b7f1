"""``nvfp4 verify``."""

from __future__ import annotations

import argparse

from ..checkpoint import verify_checkpoint
from .output import print_json, progress


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    with progress("verify", options) as on_progress:
        result = verify_checkpoint(
            options.path, options.source, on_progress, complete_from=options.complete_from
        )
    if options.json:
        print_json(result.to_json())
    else:
        for problem in result.problems:
            print(f"problem: {problem}")
        compared = "compared with its source" if options.source else "not compared with a source"
        verdict = "fine" if result.ok else f"{len(result.problems)} problems"
        print(f"{verdict}: {result.layers} layers, {result.quantized} quantized, {compared}")
    return 0 if result.ok else 1
