"""Tiles that several views share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from ...checkpoint.layer_record import OverallError
from ...text import format_bytes
from .layer_view import Tile


def size_tile(before: int | None, after: int) -> Tile:
    """Return the tile of the size before and after; ``before`` may be unknown."""
    if not before:
        return Tile("size", format_bytes(after))
    return Tile("size", f"{format_bytes(before)} → {format_bytes(after)}", share(after, before))


def share(after: int, before: int) -> str:
    """Return a size as a share of another one."""
    return f"{after / max(1, before):.0%} of the source"


def bits_tile(linears: Iterable[tuple[tuple[int, ...], int]]) -> Tile:
    """Return the tile of the average bits per weight, from shapes and stored bytes."""
    pairs = list(linears)
    weights = sum(prod(shape) for shape, _ in pairs)
    bits = 8 * sum(stored for _, stored in pairs) / weights if weights else 0.0
    return Tile("bits per weight", f"{bits:.2f}", "Linear layers, with scales and biases")


def formats_tile(counts: Mapping[str, int]) -> Tile:
    """Return the tile of the formats of Linear layers, most frequent first."""
    first, *others = [f"{count} {name}" for name, count in counts.items()] or ["none"]
    return Tile("Linear layers", first, ", ".join(others))


def coverage_tile(covered: int, expected: int) -> Tile:
    """Return the tile of the layers that the calibration observed in full."""
    complete = covered == expected
    missing = "" if complete else f"{expected - covered} not observed in full"
    return Tile("coverage", f"{covered} of {expected}", missing, "good" if complete else "bad")


def scales_tile(static: int, dynamic: int) -> Tile:
    """Return the tile of the static input scales."""
    return Tile("input scales", f"{static} static", f"{dynamic} left to the runtime")


def error_tile(overall: OverallError) -> Tile:
    """Return the tile of the error of all layers together, beside the plain max rule's."""
    detail = f"plain max rule {error_text(overall.max_rule)}; {overall.what}"
    is_better = overall.error < overall.max_rule
    return Tile("error", error_text(overall.error), detail, "good" if is_better else "")


def error_text(error: float) -> str:
    """Return an error in percent for a tile."""
    return f"{error:.1%}" if error >= 0.1 else f"{error:.2%}"
