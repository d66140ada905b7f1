"""What several subcommands take."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from ..hardware.generations import GPU_NAMES


class Parser(argparse.ArgumentParser):
    """Says what is wrong with arguments as JSON too, where JSON is asked for."""

    _as_json = False

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - its overloads
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Parse, as the base class does."""
        self._as_json = "--json" in (sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        if self._as_json:
            print(json.dumps({"ok": False, "error": message}))
        super().error(message)


def add_command(commands: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """Add a subcommand; returns its parser."""
    title = "examples" if "\n" in example else "example"
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"{title}:\n  {example}",
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


def add_recipe_options(parser: argparse.ArgumentParser, *, with_model: bool = True) -> None:
    """Add what ``commands.choice`` reads; ``with_model``: a recipe is used on a model."""
    formats = parser.add_argument_group("which layer gets which format")
    choice = formats.add_mutually_exclusive_group()
    auto = "; auto: by model" if with_model else ""
    choice.add_argument(
        "--preset", metavar="NAME", help=f"a preset ('nvfp4 recipe' lists them){auto}"
    )
    choice.add_argument("--recipe", metavar="FILE", type=Path, help="a recipe saved as JSON")
    formats.add_argument(
        "--setting",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a setting of the preset, e.g. edge_blocks=3; may be repeated",
    )
    formats.add_argument(
        "--gpu",
        choices=("auto", *GPU_NAMES),
        help="the GPU the file is for: formats become those it multiplies natively; auto: this "
        "machine's (default: as the preset or recipe says, which is for Blackwell)",
    )
    formats.add_argument(
        "--set",
        metavar="PATTERN=FORMAT",
        dest="rules",
        action="append",
        default=[],
        help="a rule that wins over the recipe's, e.g. 'blocks.*.ffn.2=bf16' or "
        "'* @ first:3 = float8_e4m3fn'; may be repeated",
    )
    if with_model:
        formats.add_argument(
            "--any-architecture",
            action="store_true",
            help="use a preset on a model it was not written for",
        )
    numbers = parser.add_argument_group("how the numbers are chosen")
    numbers.add_argument(
        "--rounding",
        metavar="NAME",
        help="how weights are rounded: weighted (default), mse, max; gptq, gptaq: "
        "with a calibration that holds Hessians",
    )
    add_scale_options(numbers)


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
