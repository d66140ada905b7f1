"""``nvfp4 stats``."""

from __future__ import annotations

import argparse

from ..calibration import load_statistics, merge_all, save_statistics
from ..describe import describe_statistics
from ..errors import CheckpointError
from .output import print_json


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    merged = merge_all([load_statistics(path) for path in options.paths])
    if options.merge:
        if options.merge.exists() and not options.overwrite:
            raise CheckpointError(f"{options.merge} exists; use --overwrite to replace it")
        save_statistics(merged, options.merge)
    if options.json:
        return print_json(merged.summary())
    print(describe_statistics(merged))
    if options.merge:
        print(f"wrote {options.merge}")
    return 0
