"""``nvfp4 stats``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ..calibration import (
    CalibrationStatistics,
    InputScalePolicy,
    load_statistics,
    merge_all,
    parse_policy,
    save_statistics,
)
from ..calibration.import_log import import_activation_log
from ..calibration.input_scale.export import ScaleExport, export_scales, write_scales
from ..calibration.input_scale.read import divisor_of
from ..errors import CalibrationError, UsageError
from ..reports.calibration import describe_statistics
from ..sources import open_source
from ..text import shorten
from .output import print_json
from .targets import files_read, require_free


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    policy = _checked(options)
    notes: list[str] = []
    merged = merge_all([*map(load_statistics, options.paths), *_logs(options, notes)])
    export: ScaleExport | None = None
    if options.export_input_scales:
        export = export_scales(
            merged,
            policy,
            flavour=options.flavour,
            format_name=options.format,
            prefix=options.prefix,
        )
        notes += _left_out(export)
    if options.merge:
        save_statistics(merged, options.merge)
    if export:
        write_scales(export, options.export_input_scales)
    if options.json:
        return print_json({**merged.summary(), "notes": notes})
    print("\n".join([*notes, describe_statistics(merged)]))
    for path in _targets(options):
        print(f"wrote {path}")
    return 0


def _checked(options: argparse.Namespace) -> InputScalePolicy:
    """Return how scales are chosen, once everything asked for makes sense."""
    if not options.paths and not options.logs:
        raise UsageError("give statistics files, or --import-log")
    if bool(options.logs) != bool(options.model):
        raise UsageError("--import-log and --model go together: a log does not say its model")
    targets = _targets(options)
    if len({path.absolute() for path in targets}) < len(targets):
        raise UsageError(f"{targets[0]} cannot hold both the statistics and the scales")
    for path in targets:
        # merging into one of the merged files loses nothing
        merged = options.paths if path == options.merge else ()
        read = [file for file in files_read(options) if file not in merged]
        require_free(path, read, options.overwrite)
    try:
        divisor_of(options.format)
        return parse_policy(options.input_scale or "amax", options.headroom)
    except CalibrationError as error:
        raise UsageError(str(error)) from error


def _targets(options: argparse.Namespace) -> list[Path]:
    return [path for path in (options.merge, options.export_input_scales) if path]


def _logs(options: argparse.Namespace, notes: list[str]) -> Iterator[CalibrationStatistics]:
    """Import the logs; what a user should know of them is added to the notes."""
    if not options.logs:
        return
    with open_source(options.model) as source:
        fingerprint = source.fingerprint()
    for path in options.logs:
        found = import_activation_log(path, fingerprint, ignore_unknown=options.ignore_unknown)
        notes += found.notes
        yield found.statistics


def _left_out(export: ScaleExport) -> list[str]:
    notes = [f"{export.layers} layers get a static scale"]
    if export.left_out:
        notes.append(f"none for {len(export.left_out)}: {shorten(export.left_out)}")
    return notes
