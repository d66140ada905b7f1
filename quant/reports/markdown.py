"""Untrusted texts in Markdown: names from files must not become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..text import printable

# Commas, brackets, and points and hyphens within words are never markup; after a w, a point may
# be part of a link.
_HARMLESS = r"[,()]|(?<=[0-9A-Za-vx-z])[.-](?=[0-9A-Za-z])"
_PUNCTUATION = re.compile(rf"(?!{_HARMLESS})([!-/:-@\[-`{{-~])")


def plain(text: str) -> str:
    """Return a text as one line of Markdown that shows exactly this text."""
    return _PUNCTUATION.sub(r"\\\1", _one_line(text))


def code(text: str) -> str:
    """Return a text as code within a line; it may be in a table.

    The fence is longer than any run of backticks in the text.
    """
    line = _one_line(text).replace("|", r"\|")
    if not line.strip():
        return "(empty)"
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith(("`", " ")) or line.endswith(("`", " ")) else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: str, language: str = "") -> str:
    """Return a text as a block of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{printable(text)}\n{fence}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
