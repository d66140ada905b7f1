"""Lists of names, written short: ``blocks.{0..2}.{k,q}`` stands for six names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")
_BRACES = re.compile(r"\{([^}]*)\}")


def fold(values: Mapping[str, Value]) -> dict[str, Value]:
    """Join names that differ in one dotted part and have the same value, the last parts first."""
    folded = dict(values)
    deepest = max((name.count(".") for name in folded), default=0)
    for depth in range(deepest, -1, -1):
        groups: dict[tuple[str, str, str], list[str]] = {}
        for name, value in folded.items():
            parts = name.split(".")
            if depth < len(parts):
                before, after = ".".join(parts[:depth]), ".".join(parts[depth + 1 :])
                groups.setdefault((before, after, repr(value)), []).append(parts[depth])
        for (before, after, _), parts in groups.items():
            if len(parts) > 1:
                names = [".".join(filter(None, (before, part, after))) for part in parts]
                value = folded[names[0]]
                for name in names:
                    del folded[name]
                folded[".".join(filter(None, (before, _joined(parts), after)))] = value
    return {name: folded[name] for name in sorted(folded, key=natural)}


def _joined(parts: Iterable[str]) -> str:
    numbers = sorted(int(part) for part in parts if part.isdecimal())
    others = sorted((part for part in parts if not part.isdecimal()), key=natural)
    spans = [str(a) if a == b else f"{a}..{b}" for a, b in _runs(numbers)]
    return "{" + ",".join([*spans, *others]) + "}"


def _span(text: str) -> list[str]:
    first, dots, last = text.partition("..")
    return [str(i) for i in range(int(first), int(last) + 1)] if dots else [text]


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def expand(folded: str) -> list[str]:
    """Return the names that a folded name stands for."""
    pieces = _BRACES.split(folded)
    choices = [
        [piece] if i % 2 == 0 else [name for text in piece.split(",") for name in _span(text)]
        for i, piece in enumerate(pieces)
    ]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def natural(name: str) -> list[tuple[int, str]]:
    """Sort ``blocks.2`` before ``blocks.10``."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
