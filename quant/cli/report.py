"""``nvfp4 report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UsageError
from .options import add_overwrite
from .parser import Commands, add_command
from .paths import InputPath, OwnOutputPath, output_ending_in


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "report",
        run,
        "Report what a checkpoint's header tells: errors, reasons, how it was made. "
        "Also as a model card or a page.",
        "nvfp4 report model_nvfp4.safetensors --card README.md --html report.html",
    )
    parser.add_argument(
        "path",
        metavar="FILE",
        type=InputPath,
        help="a file, an index.json, a folder, or hf://owner/repo/file",
    )
    parser.add_argument(
        "--card",
        metavar="MD",
        nargs="?",
        const=True,
        type=OwnOutputPath,
        help="write a model card in Markdown, and a picture of the layers beside it (default: "
        "beside FILE, with its name). Replaces only cards that this command wrote",
    )
    parser.add_argument(
        "--base-model", metavar="OWNER/NAME", default="", help="the original model, for the card"
    )
    parser.add_argument(
        "--html",
        metavar="HTML",
        type=output_ending_in(".html"),
        help="write a self-contained page",
    )
    add_overwrite(parser, "an output")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from ..checkpoint import inspect_checkpoint
    from ..reports.checkpoint import describe_summary
    from ..reports.page import render_page
    from ..reports.view import checkpoint_view
    from .output import print_json, print_text, save_text

    if options.base_model and not options.card:
        raise UsageError("--base-model is for the card; add --card")
    if options.card:
        options.card = _write_card(options)
    summary = inspect_checkpoint(options.path)
    if options.html:
        save_text(render_page(checkpoint_view(summary)), options.html)
    if options.json:
        return print_json(checkpoint_view(summary).to_json())
    return print_text(describe_summary(summary), options)


def _write_card(options: argparse.Namespace) -> OwnOutputPath:
    """Write the card; returns where."""
    from ..files.target import names_one_file
    from ..reports.card import write_card

    path = Path(options.path)
    if not path.is_file():
        raise UsageError(f"{options.path} is not a file; a card is of one file on this machine")
    card = None if options.card is True else options.card.path
    if card is not None and names_one_file(card, path):
        raise UsageError(f"{card} is the checkpoint itself; give the card another name")
    written = write_card(path, card, base_model=options.base_model, overwrite=options.overwrite)
    return OwnOutputPath(written)
