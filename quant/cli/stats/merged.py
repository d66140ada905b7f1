"""What the subcommands of ``nvfp4 stats`` share: several calibrations read as one, and its text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..paths import InputPath

if TYPE_CHECKING:
    from ...calibration import CalibrationStatistics


def add_calibrations(parser: argparse.ArgumentParser, kind: type[InputPath] = InputPath) -> None:
    """Add the files to read."""
    parser.add_argument(
        "paths", metavar="FILE", type=kind, nargs="+", help="calibrations of one model"
    )


def merged(options: argparse.Namespace) -> CalibrationStatistics:
    """Read the calibrations and merge them."""
    from ...calibration import load_statistics, merge_all

    return merge_all(map(load_statistics, options.paths))


def print_calibration(
    statistics: CalibrationStatistics, options: argparse.Namespace, notes: Sequence[str] = ()
) -> int:
    """Print what a calibration holds; returns the exit code of success."""
    from ...reports.calibration import describe_statistics
    from ..output import print_json, print_text

    if options.json:
        return print_json({**statistics.summary(), "notes": list(notes)})
    return print_text("\n".join([*notes, describe_statistics(statistics)]), options)
