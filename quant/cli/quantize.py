"""``nvfp4 quantize``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .options import (
    add_calibration,
    add_device,
    add_overwrite,
    add_recipe_options,
    add_source,
)
from .parser import Commands, add_command
from .paths import OutputPath, output_ending_in
from .ranks import allow_ranks

if TYPE_CHECKING:
    from ..calibration import CalibrationStatistics
    from ..conversion.report import ConversionReport


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "quantize",
        run,
        "Write a mixed-precision NVFP4 checkpoint.",
        "nvfp4 quantize model.safetensors model_nvfp4.safetensors --preset wan2.2-ti2v-5b "
        "--calibration calibration.safetensors",
    )
    allow_ranks(parser)
    add_source(parser)
    parser.add_argument("target", metavar="DST", type=OutputPath, help="the checkpoint to write")
    add_calibration(parser)
    parser.add_argument(
        "--whole-checkpoint",
        action="store_true",
        help="also copy the text encoder and the VAE of a full checkpoint",
    )
    add_device(parser)
    parser.add_argument(
        "--report",
        metavar="FILE",
        type=output_ending_in(".html", ".json", ".txt"),
        help="also save the report, as .html, .json or .txt",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the finished layers beside DST if the run is stopped, and go on from them; "
        "give it from the first run on",
    )
    add_overwrite(parser, "an output")
    add_recipe_options(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..reports.conversion import conversion_headline
    from ..text import printable
    from .output import print_json, save_text

    report, statistics = _convert(options)
    if not options.ranks.is_first:
        return 0
    if options.report:
        save_text(_report_text(report, statistics, options.report.path), options.report)
    if options.json:
        return print_json(report.to_json())
    print(printable(conversion_headline(report)))
    return 0


def _convert(
    options: argparse.Namespace,
) -> tuple[ConversionReport, CalibrationStatistics | None]:
    """Convert, and return the report and the calibration that was used."""
    from ..calibration import load_statistics
    from ..conversion.convert import convert
    from ..planning import take_inventory
    from .choice import chosen_device, chosen_plan, chosen_source
    from .output import progress

    device = chosen_device(options)
    statistics = load_statistics(options.calibration) if options.calibration else None
    with chosen_source(options) as source, progress("quantize", options) as on_progress:
        report = convert(
            source,
            chosen_plan(options, take_inventory(source)),
            options.target.path,
            statistics=statistics,
            overwrite=options.overwrite,
            device=device,
            whole_file=options.whole_checkpoint,
            resume=options.resume,
            ranks=options.ranks,
            on_progress=on_progress,
        )
    return report, statistics


def _report_text(
    report: ConversionReport, statistics: CalibrationStatistics | None, path: Path
) -> str:
    from ..reports.conversion import describe_conversion
    from ..reports.page import render_page
    from ..reports.view import conversion_view

    if path.suffix == ".html":
        return render_page(conversion_view(report, statistics))
    return report.dumps() if path.suffix == ".json" else describe_conversion(report)
