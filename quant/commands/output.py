"""What commands print: JSON, and a bar while they work."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from ..progress import OnProgress


@contextmanager
def progress(title: str, options: argparse.Namespace) -> Iterator[OnProgress]:
    """Show a bar on a terminal; say nothing into a file or with --json."""
    hidden = options.json or not sys.stderr.isatty()
    with tqdm(desc=title, unit="B", unit_scale=True, disable=hidden) as bar:

        def advance(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.set_postfix_str(name, refresh=False)
            bar.update(done - bar.n)

        yield advance


def print_json(data: Any) -> int:
    """Print data for programs; returns the exit code of success."""
    print(json.dumps(data, indent=1))
    return 0
