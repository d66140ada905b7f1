"""What commands print and save: JSON, a progress bar, the names of the files they wrote."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..files.write import write_text, written_whole
from ..text import printable
from .interrupts import Interrupts
from .paths import OutputPath, outputs_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..progress import OnProgress


@contextmanager
def progress(title: str, options: argparse.Namespace) -> Iterator[OnProgress]:
    """Show a progress bar on a terminal; nothing elsewhere or with ``--json``."""
    from tqdm import tqdm

    Interrupts.raise_if_lost()
    hidden = options.json or not sys.stderr.isatty() or not options.ranks.is_first
    with tqdm(desc=title, unit="B", unit_scale=True, disable=hidden) as bar:

        def advance(done: int, total: int, name: str) -> None:
            Interrupts.raise_if_lost()
            bar.total = total
            bar.set_postfix_str(printable(name), refresh=False)
            bar.update(done - bar.n)

        yield advance


def print_json(data: Any) -> int:
    """Print data for programs; returns the exit code of success."""
    print(json.dumps(data, indent=1))
    return 0


def print_text(text: str, options: argparse.Namespace) -> int:
    """Print a result for people, then the files written; returns the exit code of success.

    Control characters in names are shown as escapes.
    """
    print(printable(text))
    print_written(options)
    return 0


def print_written(options: argparse.Namespace) -> None:
    """Name the files that the command wrote."""
    for output in outputs_of(options):
        print(printable(f"wrote {output}"))


def save_text(text: str, output: OutputPath) -> None:
    """Write a text file that ends in a line break. Raises `FileError` if it cannot be written."""
    write_text(output.path, text.rstrip() + "\n")


def save_picture(picture: Image, output: OutputPath) -> None:
    """Write a picture as PNG. Raises `FileError` if it cannot be written."""
    with written_whole(output.path) as file:
        picture.save(file, "PNG")
