"""``nvfp4 quantize``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..calibration import load_statistics
from ..convert import convert
from ..errors import CheckpointError, UsageError
from ..hardware import pick_device
from ..planning import take_inventory
from ..report import ConversionReport
from .choice import chosen_plan
from .output import print_json, progress
from .source import chosen_source
from .targets import is_one_of


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    try:
        device = pick_device(options.device)
    except ValueError as error:
        raise UsageError(str(error)) from error
    write_report = _report_writer(options)
    if options.stats and options.target.exists() and options.target.samefile(options.stats):
        raise UsageError(f"{options.target} is the calibration itself; choose another name")
    if options.target.is_file() and not options.overwrite:
        raise CheckpointError(f"{options.target} exists; use --overwrite to replace it")
    statistics = load_statistics(options.stats) if options.stats else None
    with chosen_source(options) as source, progress("quantize", options) as on_progress:
        if options.report and is_one_of(options.report, source.paths):
            raise UsageError(f"--report {options.report}: that is a file of the source")
        report = convert(
            source,
            chosen_plan(options, take_inventory(source)),
            options.target,
            statistics=statistics,
            overwrite=options.overwrite,
            device=device,
            whole_file=options.whole_checkpoint,
            on_progress=on_progress,
        )
    if write_report:
        write_report(report)
    if options.json:
        return print_json(report.to_json())
    print(report.headline())
    return 0


def _report_writer(options: argparse.Namespace) -> Callable[[ConversionReport], None] | None:
    """Check the report's path before the work, and return what will write it."""
    path: Path | None = options.report
    if path is None:
        return None
    writers = {".html": "to_html", ".json": "dumps", ".txt": "to_text"}
    if path.suffix not in writers:
        raise UsageError(f"--report {path}: the name must end in {', '.join(writers)}")
    if not path.parent.is_dir():
        raise UsageError(f"--report {path}: the folder {path.parent} does not exist")
    if path.absolute() == options.target.absolute():
        raise UsageError(f"--report {path}: that is where the checkpoint goes")
    if path.is_dir() or (path.exists() and not options.overwrite):
        raise CheckpointError(f"{path} exists; use --overwrite to replace a report")
    method = writers[path.suffix]

    def write(report: ConversionReport) -> None:
        path.write_text(getattr(report, method)(), encoding="utf-8")

    return write
