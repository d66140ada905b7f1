"""``nvfp4 quantize``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..calibration import load_statistics
from ..conversion.convert import convert
from ..conversion.report import ConversionReport
from ..errors import UsageError
from ..hardware.machine import pick_device
from ..planning import take_inventory
from ..reports.conversion import conversion_headline
from .choice import chosen_plan
from .output import print_json, progress
from .source import chosen_source
from .targets import files_read, is_one_of, require_free


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    try:
        device = pick_device(options.device)
    except ValueError as error:
        raise UsageError(str(error)) from error
    write_report = _report_writer(options)
    require_free(options.target, files_read(options), options.overwrite)
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
    print(conversion_headline(report))
    return 0


def _report_writer(options: argparse.Namespace) -> Callable[[ConversionReport], None] | None:
    """Check the report's path before the work, and return what will write it."""
    path: Path | None = options.report
    if path is None:
        return None
    writers = {".html": "to_html", ".json": "dumps", ".txt": "to_text"}
    if path.suffix not in writers:
        raise UsageError(f"--report {path}: the name must end in {', '.join(writers)}")
    if path.absolute() == options.target.absolute():
        raise UsageError(f"--report {path}: that is where the checkpoint goes")
    require_free(path, files_read(options), options.overwrite)
    method = writers[path.suffix]

    def write(report: ConversionReport) -> None:
        path.write_text(getattr(report, method)(), encoding="utf-8")

    return write
