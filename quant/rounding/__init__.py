"""Roundings: how the codes and scales of a quantized weight are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from ..errors import RecipeError
from ..formats.rule import ScaleRule
from .gptq import GptqRule
from .max import MaxRule
from .second_moments import SecondMoments
from .sweep import SweepRule


class Rounding(ScaleRule, Protocol):
    """A way to choose codes and scales, which may depend on the layer's input."""

    def for_input(
        self, mean_square: torch.Tensor | None, moments: SecondMoments | None = None
    ) -> Rounding:
        """Return the rounding for a layer with K input channels.

        Args:
            mean_square: ``E[x^2]`` of the layer's input, float32 ``[K]``; None if unknown.
            moments: second moments of the layer's input; None if they were not collected.
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
#: Roundings that need second moments. Without them, they do the same as `DEFAULT_ROUNDING`.
NEED_MOMENTS = ("gptq", "gptaq")

#: Weights channels by their input energy. If the input is unknown, it does the same as ``mse``.
DEFAULT_ROUNDING = "weighted"


def get_rounding(name: str) -> Rounding:
    """Return a rounding by name.

    Raises:
        RecipeError: the name is unknown; the message lists the roundings.
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
