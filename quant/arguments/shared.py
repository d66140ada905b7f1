"""What several subcommands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..format_support import GPU_NAMES


def add_command(commands: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """Add a subcommand; returns its parser."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON to standard output")
    return parser


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the model to quantize and what completes it: what ``commands.source`` reads."""
    parser.add_argument(
        "source", metavar="SRC", help="file, index.json, folder, or hf://owner/repo/file"
    )
    add_complete_from(parser)


def add_complete_from(parser: argparse.ArgumentParser) -> None:
    """Add where tensors come from that the source lacks."""
    parser.add_argument(
        "--complete-from",
        metavar="FILE",
        help="take tensors from here that SRC lacks, such as the patch embedding that WAN GGUF "
        "files often lack",
    )


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``commands.choice`` reads."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--preset", metavar="NAME", help="a preset ('nvfp4 recipe' lists them); auto: by model"
    )
    choice.add_argument("--recipe", metavar="FILE", type=Path, help="a recipe saved as JSON")
    parser.add_argument(
        "--setting",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a setting of the preset, e.g. edge_blocks=3; may be repeated",
    )
    parser.add_argument(
        "--gpu",
        choices=("auto", *GPU_NAMES),
        help="the GPU the file is for: formats become those it multiplies natively; auto: this "
        "machine's (default: as the preset or recipe says, which is for Blackwell)",
    )
    parser.add_argument(
        "--set",
        metavar="PATTERN=FORMAT",
        dest="rules",
        action="append",
        default=[],
        help="a rule that wins over the recipe's, e.g. 'blocks.*.ffn.2=bf16' or "
        "'* @ first:3 = float8_e4m3fn'; may be repeated",
    )
    parser.add_argument(
        "--rounding",
        metavar="NAME",
        help="how weights are rounded: weighted (default), mse, max; gptq, gptaq: "
        "with a calibration that holds Hessians",
    )
    add_scale_options(parser)
    parser.add_argument(
        "--any-architecture",
        action="store_true",
        help="use a preset on a model it was not written for",
    )


def add_scale_options(parser: Any) -> None:
    """Add what static activation scales represent, to a parser or a group of one."""
    parser.add_argument(
        "--input-scale",
        metavar="POLICY",
        help="static activation scales: amax (default), p99.9, dynamic, fixed=VALUE, or file=PATH: "
        "the values in a JSON file of another tool or in a quantized checkpoint",
    )
    parser.add_argument(
        "--headroom",
        metavar="X",
        type=float,
        help="multiplier of the calibrated amax or percentile (default 4)",
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add where the numbers are computed."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where weights are encoded (default: cuda if there is one)",
    )
