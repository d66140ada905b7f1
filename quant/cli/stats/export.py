"""``nvfp4 stats export``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_output, add_overwrite, add_scale_options, wrong_usage
from ..parser import Commands, add_command
from .merged import add_calibrations, merged, print_calibration

if TYPE_CHECKING:
    from ...calibration import InputScalePolicy
    from ...calibration.input_scale.export import ScaleExport


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "export",
        run,
        "Write the input scale of each layer as JSON, for other converters.",
        "nvfp4 stats export calibration.safetensors --output scales.json",
    )
    add_calibrations(parser)
    add_output(parser, "JSON", "the file to write", required=True)
    parser.add_argument(
        "--as",
        dest="flavour",
        choices=("layers", "tensors", "summary"),
        default="layers",
        help="layers (default): the scale by layer name, for convert_to_quant; tensors: the scale "
        "by the name of its tensor; summary: what was seen, for convert_nvfp4",
    )
    parser.add_argument(
        "--for",
        metavar="FORMAT",
        dest="format",
        default="nvfp4",
        help="the format that the scales are for (default: nvfp4)",
    )
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        default="",
        help="put this before each name, e.g. model.diffusion_model.",
    )
    add_scale_options(parser)
    add_overwrite(parser, "JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ...calibration.input_scale.export import export_scales, write_scales

    policy = _policy(options)
    statistics = merged(options)
    export = export_scales(
        statistics,
        policy,
        flavour=options.flavour,
        format_name=options.format,
        prefix=options.prefix,
    )
    write_scales(export, options.output.path)
    return print_calibration(statistics, options, _notes(export))


def _policy(options: argparse.Namespace) -> InputScalePolicy:
    """Return how the scales are chosen, for a format that takes one."""
    from ...calibration import parse_policy
    from ...calibration.input_scale.read import divisor_of

    with wrong_usage():
        divisor_of(options.format)
        return parse_policy(options.input_scale or "amax")


def _notes(export: ScaleExport) -> list[str]:
    from ...text import shorten

    notes = [f"{export.layers} layers get a static scale"]
    if export.left_out:
        notes.append(f"{len(export.left_out)} layers get none: {shorten(export.left_out)}")
    return notes
