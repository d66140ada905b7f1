"""``nvfp4 verify``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..text import printable
from .options import add_complete_from, add_layout
from .parser import Commands, add_command
from .paths import InputPath

if TYPE_CHECKING:
    from ..checkpoint.verify import VerifyResult


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "verify",
        run,
        "Read a checkpoint back and check it, against its source if you give it.",
        "nvfp4 verify model_nvfp4.safetensors --source model.safetensors",
    )
    parser.add_argument(
        "path",
        metavar="DST",
        type=InputPath,
        help="the checkpoint: a file, an index.json, a folder, or hf://owner/repo/file",
    )
    parser.add_argument(
        "--source", metavar="SRC", type=InputPath, help="the model that DST was made from"
    )
    add_complete_from(parser)
    add_layout(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..checkpoint import verify_checkpoint
    from .output import print_json, progress

    if options.complete_from and not options.source:
        raise UsageError("--complete-from completes the --source; give both")
    with progress("verify", options) as on_progress:
        result = verify_checkpoint(
            options.path,
            options.source,
            on_progress,
            complete_from=options.complete_from,
            layout=options.layout,
        )
    if options.json:
        print_json(result.to_json())
    else:
        _print_verdict(result)
    return 0 if result.ok else 1


def _print_verdict(result: VerifyResult) -> None:
    for problem in result.problems:
        print(printable(f"problem: {problem}"))
    for note in result.notes:
        print(printable(f"note: {note}"))
    verdict = "fine" if result.ok else f"{len(result.problems)} problems"
    how = (
        "compared with its source" if result.compared_with_source else "not compared with a source"
    )
    print(f"{verdict}: {result.layers} layers, {result.quantized} quantized, {how}")
