"""``nvfp4 stats import``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_layout, add_output, add_overwrite
from ..parser import Commands, add_command
from ..paths import InputPath, require_not_read
from .merged import print_calibration

if TYPE_CHECKING:
    from ...fingerprint import ModelFingerprint


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = add_command(
        commands,
        "import",
        run,
        "Make a calibration from activation logs of patched ComfyUI installs.",
        "nvfp4 stats import scales.xz --model model.safetensors --output calibration.safetensors",
    )
    parser.add_argument(
        "logs",
        metavar="LOG",
        type=InputPath,
        nargs="+",
        help="a log with lines of format, dynamic|provided, layer, scale, amax, shape; .gz, .xz "
        "and .bz2 are read too",
    )
    parser.add_argument(
        "--model",
        metavar="SRC",
        type=InputPath,
        required=True,
        help="the model that was logged: a file, an index.json, a folder, or hf://owner/repo/file",
    )
    parser.add_argument(
        "--ignore-unknown",
        action="store_true",
        help="leave out layers that the model lacks, such as those of a text encoder",
    )
    add_layout(parser)
    add_output(parser, "OUT", "the calibration to write", required=True)
    add_overwrite(parser, "OUT")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ...calibration import merge_all, save_statistics
    from ...calibration.import_log import import_activation_log

    fingerprint = _fingerprint(options)
    found = [
        import_activation_log(path.path, fingerprint, ignore_unknown=options.ignore_unknown)
        for path in options.logs
    ]
    statistics = merge_all(log.statistics for log in found)
    save_statistics(statistics, options.output)
    return print_calibration(statistics, options, [note for log in found for note in log.notes])


def _fingerprint(options: argparse.Namespace) -> ModelFingerprint:
    from ...sources import open_source

    with open_source(options.model, layout=options.layout) as source:
        require_not_read(options, source.paths)
        return source.fingerprint()
