"""``nvfp4 rescale``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..calibration import InputScalePolicy, load_statistics, parse_policy
from ..checkpoint import rescale_checkpoint
from ..errors import CalibrationError, UsageError
from ..reports.rescale import describe_rescale
from ..sources import local_path
from ..sources.hub import HUB
from .output import print_json, progress
from .targets import files_read, require_free


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    policy = _policy(options)
    path = local_path(options.path)
    target = _target(options, path)
    statistics = load_statistics(options.stats) if options.stats else None
    with progress("rescale", options) as on_progress:
        report = rescale_checkpoint(
            path,
            policy,
            statistics,
            target,
            overwrite=options.overwrite or options.in_place,
            on_progress=on_progress,
        )
    if options.json:
        return print_json(report.to_json())
    print(describe_rescale(report))
    print(f"wrote {target}" if target else "nothing was written")
    return 0


def _policy(options: argparse.Namespace) -> InputScalePolicy:
    """Return what the scales shall represent; anything wrong is bad usage."""
    if options.dynamic and (options.stats or options.input_scale or options.headroom):
        raise UsageError("--dynamic removes the scales; it takes no --stats and no policy")
    text = "dynamic" if options.dynamic else options.input_scale or "amax"
    try:
        policy = parse_policy(text, options.headroom)
    except CalibrationError as error:
        raise UsageError(str(error)) from error
    if policy.kind in ("amax", "percentile") and not options.stats:
        raise UsageError("give --stats, or --dynamic, or --input-scale fixed=VALUE or file=PATH")
    return policy


def _target(options: argparse.Namespace, path: Path) -> Path | None:
    """Return where the result goes, None for a dry run."""
    if options.in_place:
        if options.path.startswith(HUB):
            raise UsageError(f"{options.path} is not on this machine; use --output")
        return path
    if options.output:
        require_free(options.output, (path, *files_read(options)), options.overwrite)
    return options.output
