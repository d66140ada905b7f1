"""The ``nvfp4`` command: arguments in, exit code out. The work is in ``commands``."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .errors import FoundryError
from .version import VERSION

OK, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 fine, 1 failed, 2 bad usage, 130 interrupted."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    _stop_cleanly_when_terminated()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console may lack letters of a prompt or name
            stream.reconfigure(errors="backslashreplace")
    try:
        from . import commands  # torch is imported here, after --help had its chance to be quick
    except KeyboardInterrupt:
        return _fail(options, "interrupted", INTERRUPTED)

    command: Callable[[argparse.Namespace], int] = getattr(commands, f"run_{options.command}")
    try:
        return command(options)
    except commands.UsageError as error:
        return _fail(options, f"{error}", BAD_USAGE)
    except FoundryError as error:
        return _fail(options, str(error), FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone
        return FAILED
    except OSError as error:
        return _fail(options, str(error), FAILED)
    except KeyboardInterrupt:
        return _fail(options, "interrupted; no unfinished file was left", INTERRUPTED)


def _fail(options: argparse.Namespace, message: str, code: int) -> int:
    print(f"nvfp4 {options.command}: {message}", file=sys.stderr)
    if options.json:
        print(json.dumps({"ok": False, "error": message}))
    return code


def _stop_cleanly_when_terminated() -> None:
    """Turn SIGTERM into an exception, so that unfinished files are removed."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="nvfp4",
        description="Turn diffusion models into calibrated, mixed-precision NVFP4 checkpoints.",
    )
    parser.add_argument("--version", action="version", version=f"nvfp4-foundry {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_inspect(commands)
    _add_plan(commands)
    _add_quantize(commands)
    _add_verify(commands)
    _add_compare(commands)
    _add_stats(commands)
    _add_sensitivity(commands)
    _add_mix(commands)
    _add_recipe(commands)
    _add_doctor(commands)
    _add_demo(commands)
    return parser


def _add(commands: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON to standard output")
    return parser


def _add_inspect(commands: Any) -> None:
    parser = _add(
        commands,
        "inspect",
        "Show the layers, formats and sizes of a model file.",
        "nvfp4 inspect wan2.2_ti2v_5B_nvfp4.safetensors",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="file, index.json or folder")


def _add_recipe_options(parser: argparse.ArgumentParser) -> None:
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
        help="how weight scales are chosen: weighted (default), mse, max",
    )
    parser.add_argument(
        "--input-scale",
        metavar="POLICY",
        help="static activation scales: amax (default), p99.9, dynamic, fixed=VALUE",
    )
    parser.add_argument(
        "--headroom",
        metavar="X",
        type=float,
        help="multiplier of the calibrated amax or percentile (default 4)",
    )
    parser.add_argument(
        "--any-architecture",
        action="store_true",
        help="use a preset on a model it was not written for",
    )


def _add_plan(commands: Any) -> None:
    parser = _add(
        commands,
        "plan",
        "Show which layer would get which format, and the size, without converting.",
        "nvfp4 plan wan2.2_ti2v_5B_fp16.safetensors --preset wan2.2-ti2v-5b",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="the model to quantize")
    _add_recipe_options(parser)


def _add_quantize(commands: Any) -> None:
    parser = _add(
        commands,
        "quantize",
        "Write a mixed-precision NVFP4 checkpoint.",
        "nvfp4 quantize model.safetensors model_nvfp4.safetensors --preset wan2.2-ti2v-5b "
        "--stats calibration.safetensors",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="file, index.json or folder")
    parser.add_argument("target", metavar="DST", type=Path, help="the checkpoint to write")
    _add_recipe_options(parser)
    parser.add_argument("--stats", metavar="FILE", type=Path, help="calibration statistics")
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where weights are encoded (default: cuda if there is one)",
    )
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="also save the report: .html, .json or .txt"
    )


def _add_verify(commands: Any) -> None:
    parser = _add(
        commands,
        "verify",
        "Read a checkpoint back and check it, against its source if given.",
        "nvfp4 verify model_nvfp4.safetensors --source model.safetensors",
    )
    parser.add_argument("path", metavar="DST", type=Path, help="the checkpoint")
    parser.add_argument("--source", metavar="SRC", type=Path, help="the model it was made from")


def _add_compare(commands: Any) -> None:
    parser = _add(
        commands,
        "compare",
        "Show how far the weights of two checkpoints of one model are apart, layer by layer.",
        "nvfp4 compare model.safetensors model_nvfp4.safetensors",
    )
    parser.add_argument("a", metavar="A", type=Path, help="the reference, quantized or not")
    parser.add_argument("b", metavar="B", type=Path, help="the checkpoint to measure against it")


def _add_stats(commands: Any) -> None:
    parser = _add(
        commands,
        "stats",
        "Show calibration statistics, or merge several files of one model.",
        "nvfp4 stats monday.safetensors tuesday.safetensors --merge both.safetensors",
    )
    parser.add_argument("paths", metavar="FILE", type=Path, nargs="+", help="statistics files")
    parser.add_argument("--merge", metavar="OUT", type=Path, help="write the merged statistics")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def _add_sensitivity(commands: Any) -> None:
    parser = _add(
        commands,
        "sensitivity",
        "Measure what each layer loses in each format, on calibrated inputs.",
        "nvfp4 sensitivity model.safetensors --stats calibration.safetensors "
        "--output sensitivity.json --plot map.png",
    )
    parser.description = (
        f"{parser.description}\n\nThis is the error of each layer's own output. How far the "
        "whole model's output moves\ncan be measured in ComfyUI only, which has a sampler: by "
        "its node Probe Latent Shift."
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="file, index.json or folder")
    parser.add_argument(
        "--stats", metavar="FILE", type=Path, required=True, help="calibration statistics"
    )
    parser.add_argument(
        "--output", metavar="FILE", type=Path, required=True, help="the sensitivity, as JSON"
    )
    parser.add_argument(
        "--formats", metavar="A,B", help="candidate formats (default: every quantized one)"
    )
    parser.add_argument(
        "--rounding", metavar="NAME", help="how weight scales are chosen (default: weighted)"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where weights are encoded (default: cuda if there is one)",
    )
    parser.add_argument(
        "--plot", metavar="PNG", type=Path, help="also draw a heat map of the first format"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace --output and --plot if they exist"
    )


def _add_mix(commands: Any) -> None:
    parser = _add(
        commands,
        "mix",
        "Choose each layer's format for a size, bits per weight or error, by measured sensitivity.",
        "nvfp4 mix model.safetensors --sensitivity sensitivity.json --preset auto --size 4.2GB "
        "--output mix.json --plot frontier.png",
    )
    parser.description = (
        f"{parser.description}\n\nOnly Linears that the preset or recipe quantizes are chosen "
        "anew. Without a budget the\nmix is as large as the preset's own. 'nvfp4 quantize "
        "--recipe mix.json' uses it."
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="the model to quantize")
    parser.add_argument(
        "--sensitivity", metavar="FILE", type=Path, required=True, help="what layers lose"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--size", metavar="SIZE", help="least error in a file of e.g. 4.2GB")
    budget.add_argument("--bits", metavar="X", help="least error at X bits per mixed weight")
    budget.add_argument("--error", metavar="X%", help="least size with a predicted error of X%%")
    parser.add_argument(
        "--formats",
        metavar="A,B",
        help="to choose from (default: nvfp4,float8_e4m3fn,bf16); nvfp4_w4a16 would replace every "
        "nvfp4, being as small, more precise and slower",
    )
    _add_recipe_options(parser)
    parser.add_argument("--output", metavar="FILE", type=Path, help="save the mix as a recipe")
    parser.add_argument("--plot", metavar="PNG", type=Path, help="draw error over size")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace --output and --plot if they exist"
    )


def _add_recipe(commands: Any) -> None:
    parser = _add(
        commands,
        "recipe",
        "List the presets, show one as a recipe, or check a recipe file.",
        "nvfp4 recipe --preset wan2.2-14b --setting edge_blocks=3 --output mine.json",
    )
    _add_recipe_options(parser)
    parser.add_argument("--output", metavar="FILE", type=Path, help="save the recipe as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")


def _add_doctor(commands: Any) -> None:
    _add(
        commands,
        "doctor",
        "Say what this machine runs natively and why NVFP4 may not be faster.",
        "nvfp4 doctor",
    )


def _add_demo(commands: Any) -> None:
    parser = _add(
        commands,
        "demo",
        "Calibrate, quantize and compare a tiny trained WAN, without ComfyUI or downloads.",
        "nvfp4 demo --output demo-output",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        default=Path("demo-output"),
        help="where to write; files of an earlier demo are replaced",
    )


if __name__ == "__main__":
    sys.exit(main())
