"""``nvfp4 verify``."""

from __future__ import annotations

import argparse

from ..checkpoint import verify_checkpoint
from ..errors import UsageError
from .output import print_json, progress


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if options.complete_from and not options.source:
        raise UsageError("--complete-from completes the --source; give both")
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
