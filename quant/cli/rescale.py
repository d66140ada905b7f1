"""``nvfp4 rescale``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..text import printable
from .options import add_calibration, add_overwrite, add_scale_options, wrong_usage
from .parser import Commands, add_command
from .paths import InputPath, OutputPath, require_not_read

if TYPE_CHECKING:
    from ..calibration import InputScalePolicy


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "rescale",
        run,
        "Give a quantized checkpoint other static input scales, without quantizing it again.",
        "nvfp4 rescale model_nvfp4.safetensors --calibration calibration.safetensors --in-place",
        "Only the input_scale tensors of NVFP4 and float8 layers are written, added or removed.\n"
        "All other tensors stay as they are, byte for byte. The checkpoint may be one that\n"
        "another tool made.",
    )
    parser.add_argument(
        "path",
        metavar="CHECKPOINT",
        type=InputPath,
        help="the quantized file, or hf://owner/repo/file",
    )
    add_calibration(parser)
    add_scale_options(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--output", metavar="OUT", type=OutputPath, help="write the result to this file"
    )
    target.add_argument("--in-place", action="store_true", help="replace CHECKPOINT itself")
    target.add_argument("--dry-run", action="store_true", help="only show what would change")
    add_overwrite(parser, "OUT")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..calibration import load_statistics
    from ..checkpoint import rescale_checkpoint
    from ..reports.rescale import describe_rescale
    from .output import print_json, progress

    policy = _policy(options)
    path, target = _path_and_target(options)
    statistics = load_statistics(options.calibration) if options.calibration else None
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
    print(printable(describe_rescale(report)))
    print(f"wrote {target}" if target else "nothing was written")
    return 0


def _policy(options: argparse.Namespace) -> InputScalePolicy:
    """Return how the scales are chosen."""
    from ..calibration import parse_policy

    with wrong_usage():
        policy = parse_policy(options.input_scale or "amax")
    if policy.kind in ("amax", "percentile") and not options.calibration:
        raise UsageError(
            "give --calibration FILE, or --input-scale dynamic, fixed=VALUE or file=PATH"
        )
    return policy


def _path_and_target(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """Return the checkpoint on this machine and what to write, None for a dry run."""
    from ..sources import local_path, open_tensors
    from ..sources.hub import HUB

    if options.in_place and options.path.startswith(HUB):
        raise UsageError(f"{options.path} is not on this machine; use --output")
    path = local_path(options.path)
    if options.in_place:
        return path, path
    if options.output is None:
        return path, None
    with open_tensors(path) as checkpoint:
        require_not_read(options, checkpoint.paths)
    return path, options.output.path
