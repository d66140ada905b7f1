"""How the numbers of a quantized weight are chosen."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import RecipeError
from ..formats.base import ScaleRule
from .max import MaxRule
from .sweep import SweepRule

ROUNDINGS: Mapping[str, ScaleRule] = {
    rule.name: rule for rule in (MaxRule(), SweepRule("mse"), SweepRule("weighted"))
}

#: Weighs channels where the input is known, and is plain ``mse`` where it is not.
DEFAULT_ROUNDING = "weighted"


def get_rounding(name: str) -> ScaleRule:
    """Return a rounding by name.

    Raises:
        RecipeError: unknown name; the message lists the known ones.
    """
    try:
        return ROUNDINGS[name]
    except KeyError:
        raise RecipeError(
            f"unknown rounding {name!r}; the roundings are {', '.join(ROUNDINGS)}"
        ) from None


__all__ = ["DEFAULT_ROUNDING", "ROUNDINGS", "MaxRule", "SweepRule", "get_rounding"]
