"""How the numbers of a quantized weight are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from ..errors import RecipeError
from ..formats.base import ScaleRule
from .gptq import GptqRule
from .max import MaxRule
from .second_moments import SecondMoments
from .sweep import SweepRule


class Rounding(ScaleRule, Protocol):
    """A way to choose numbers that may learn of a layer's input first."""

    def for_input(
        self, mean_square: torch.Tensor | None, moments: SecondMoments | None = None
    ) -> Rounding:
        """Return the rounding for a layer, K input channels.

        Args:
            mean_square: ``E[x^2]`` of its input, float32 ``[K]``, if it is known.
            moments: second moments of its input, if they were collected.
        """
        ...


ROUNDINGS: Mapping[str, Rounding] = {
    rule.name: rule
    for rule in (
        MaxRule(),
        SweepRule("mse"),
        SweepRule("weighted"),
        GptqRule("gptq"),
        GptqRule("gptaq"),
    )
}
#: Those that need second moments, and do as `DEFAULT_ROUNDING` without.
NEED_MOMENTS = ("gptq", "gptaq")

#: Weighs channels where the input is known, and is plain ``mse`` where it is not.
DEFAULT_ROUNDING = "weighted"


def get_rounding(name: str) -> Rounding:
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


__all__ = [
    "DEFAULT_ROUNDING",
    "NEED_MOMENTS",
    "ROUNDINGS",
    "GptqRule",
    "MaxRule",
    "Rounding",
    "SecondMoments",
    "SweepRule",
    "get_rounding",
]
