"""Format tables, sizes, lists of names and untrusted texts for reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence


def text_table(
    headings: Sequence[str], rows: Iterable[Iterable[str]], left: Iterable[str] | None = None
) -> str:
    """Return a table with columns aligned by spaces.

    Columns whose heading is in ``left`` are aligned to the left (default: the first column), and
    all others to the right.
    """
    table = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    to_left = set(headings[:1] if left is None else left)
    flush_left = [heading in to_left for heading in headings]
    lines = []
    for row in table:
        cells = zip(row, widths, flush_left, strict=True)
        line = "  ".join(c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in cells)
        lines.append(line.rstrip())
    return "\n".join([lines[0], "-" * sum(widths, 2 * len(widths) - 2), *lines[1:]])


def format_bytes(count: float) -> str:
    """Return a size in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def shorten(names: Iterable[str], limit: int = 6) -> str:
    """Return the first ``limit`` names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def format_percent(value: float | None) -> str:
    """Return a share in percent with two decimals, ``-`` for None."""
    return "-" if value is None else f"{value:.2%}"


def printable(text: str) -> str:
    """Return a text in which control and bidirectional characters are written as escapes.

    Names come from files; shown as they are, they could move a cursor or reverse what follows.
    """
    return "".join(c if c in "\n\t" or c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    """Return the escape of a character as in JSON, so that JSON stays valid."""
    return json.dumps(character)[1:-1] if ord(character) > 0x7E else f"\\u{ord(character):04x}"
