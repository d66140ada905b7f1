"""The limit of a mix: a file size, bits per weight, a predicted error, or an error per layer."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from ...errors import PlanError

_UNITS = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_SIZE = re.compile(rf"{_NUMBER}\s*((?:[KMGT]I?)?B)", re.IGNORECASE)
_EXAMPLES = "size=4.2GB, bits=5.5, error=3% or layer-error=8%"


@dataclass(frozen=True)
class Budget:
    """Exactly one limit.

    Attributes:
        size: bytes of all tensors in the checkpoint.
        bits: average bits per weight of the mixed layers. These are the nominal bits of the
            formats: they include block scales, but not padding or per-tensor scales.
        error: predicted relative error, 0.03 for 3%.
        layer_error: relative error of each layer's own output, 0.08 for 8%.
        four_bit: besides the limit, the least share of the mixed weights whose native products take
            4 bits, 0 to 1. The share decides the speed where 8-bit products are slower.

    Raises:
        PlanError: no limit or more than one is given, or the limit is not a number above zero, or
            the share is not between 0 and 1 or does not go with the limit.
    """

    size: int | None = None
    bits: float | None = None
    error: float | None = None
    layer_error: float | None = None
    four_bit: float = 0.0

    def __post_init__(self) -> None:
        limits = (self.size, self.bits, self.error, self.layer_error)
        given = [limit for limit in limits if limit is not None]
        if len(given) != 1:
            raise PlanError(f"give exactly one limit, e.g. {_EXAMPLES}")
        if not math.isfinite(given[0]) or given[0] <= 0:
            raise PlanError(f"a budget must be above zero, not {given[0]}; write e.g. {_EXAMPLES}")
        if not 0.0 <= self.four_bit <= 1.0:
            raise PlanError(f"a share of 4-bit products is 0% to 100%, not {self.four_bit:.0%}")
        if self.four_bit and self.layer_error is not None:
            raise PlanError(
                "a limit of each layer's error decides every format, so it cannot keep a share of "
                "4-bit products too; give a limit of size, bits or error instead"
            )

    def __str__(self) -> str:
        if self.four_bit:
            return f"{self._limit}, at least {self.four_bit * 100:.4g}% in 4-bit products"
        return self._limit

    @property
    def _limit(self) -> str:
        if self.size is not None:
            return f"size {format_size(self.size)}"
        if self.bits is not None:
            return f"{self.bits:g} bits per weight"
        if self.layer_error is not None:
            return f"error {self.layer_error * 100:.4g}% in each layer"
        return f"error {(self.error or 0) * 100:.4g}%"


def with_four_bit(budget: Budget | None, size: int, share: float) -> Budget | None:
    """Return the budget with a least share of 4-bit products; unchanged if the share is 0.

    Without a budget, the limit is ``size``, the bytes of the plan.
    """
    return replace(budget or Budget(size=size), four_bit=share) if share else budget


def parse_budget(text: str) -> Budget:
    """Read ``4.2GB``, ``size=4.2GB``, ``bits=5.5``, ``error=3%``, ``error=0.03`` or
    ``layer-error=8%``.

    Units are decimal (``GB``) or binary (``GiB``), in any case.

    Raises:
        PlanError: the text is anything else. The message shows examples.
    """
    name, equals, value = (part.strip() for part in text.rpartition("="))
    if not equals:
        name = "error" if value.endswith("%") else "size"
    if name.lower() == "size":
        return Budget(size=_parse_size(value))
    if name.lower() == "bits":
        return Budget(bits=_parse_number(value, f"bits={value}"))
    if name.lower() in ("error", "layer-error"):
        percent = value.endswith("%")
        number = _parse_number(value.rstrip("%").strip(), f"{name}={value}")
        if not percent and number >= 1:
            raise PlanError(
                f"{name}={value} means {number:.0%}; write {name}={value}% or 0.03 for 3%"
            )
        limit = number / 100 if percent else number
        return Budget(error=limit) if name.lower() == "error" else Budget(layer_error=limit)
    raise PlanError(f"{text!r} is not a budget; write e.g. {_EXAMPLES}")


def parse_share(text: str) -> float:
    """Read a share of weights, ``60%`` or ``0.6``.

    Raises:
        PlanError: the text is anything else, or not between 0% and 100%.
    """
    digits = text.strip().removesuffix("%").strip()
    if re.fullmatch(_NUMBER, digits):
        share = float(digits) / (100 if text.strip().endswith("%") else 1)
        if share <= 1:
            return share
    raise PlanError(f"{text!r} is not a share of weights; write e.g. 60% or 0.6")


def format_size(count: int) -> str:
    """Return a size that `parse_budget` reads back as at least ``count`` bytes."""
    for unit in ("GB", "MB", "kB"):
        factor = _UNITS[unit.upper()]
        if count >= factor:
            # Round up: messages name the smallest possible size, and it must work as a budget.
            return f"{math.ceil(count * 1000 / factor) / 1000:.3f} {unit}"
    return f"{count} B"


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if not match:
        raise PlanError(f"{text!r} is not a size; write a number with a unit, e.g. 4.2GB or 900MB")
    size = float(match[1]) * _UNITS[match[2].upper()]
    if not math.isfinite(size):
        raise PlanError(f"{text[:40]!r}... is larger than any size; write e.g. 4.2GB")
    return round(size)


def _parse_number(text: str, whole: str) -> float:
    if not re.fullmatch(_NUMBER, text):
        raise PlanError(f"{whole!r} is not a budget; write e.g. {_EXAMPLES}")
    return float(text)
