"""Numbers of a view: few digits, and nothing that JSON cannot hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import ROUND_CEILING, Context, Decimal

#: Digits of a number in a view. More would not be seen, and would double the size.
DIGITS = 5
_UP = Context(prec=DIGITS, rounding=ROUND_CEILING)
# The largest float with so many digits.
_LARGEST = 1.7976e308
# Larger whole numbers are shorter as floats.
_LARGEST_WHOLE = 1e15


def rounded(value: float | None) -> int | float | None:
    """Return a number with `DIGITS` significant digits; None for None, NaN and infinity."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS - 1}e}")
    return _short(short if math.isfinite(short) else math.copysign(_LARGEST, value))


def rounded_up(value: float) -> int | float:
    """Return a number with `DIGITS` significant digits, never below ``value``.

    A budget that a user picks from a view must not be smaller than the mix it stands for.
    """
    up = float(_UP.create_decimal(Decimal(value)))
    return _short(up if math.isfinite(up) else _LARGEST)


def rounded_all(values: Iterable[float | None]) -> list[int | float | None]:
    """Return a column of rounded numbers."""
    return [rounded(value) for value in values]


def _short(value: float) -> int | float:
    """Return whole numbers as int, which take fewer characters in JSON."""
    return int(value) if value.is_integer() and abs(value) < _LARGEST_WHOLE else value
