"""Search for the scales of least squared error, with or without channel weights."""

from __future__ import annotations

import torch

from ..formats.rule import ErrorFeedback
from .second_moments import SecondMoments

# The least weight of a channel, relative to the mean of ``E[x^2]``.
_EVEN_WEIGHT = 0.3


class SweepRule:
    """Rule that searches for the scales of least squared error.

    ``channel_weights`` (float32 ``[in]``) says how much the error of each channel counts, see
    `weights_of_input`. None means equally.
    """

    searches = True

    def __init__(self, name: str, channel_weights: torch.Tensor | None = None):
        self.name = name
        self.channel_weights = channel_weights

    @property
    def feedback(self) -> ErrorFeedback | None:
        """None: every value goes to the nearest."""
        return None

    def for_input(
        self, mean_square: torch.Tensor | None, moments: SecondMoments | None = None
    ) -> SweepRule:
        """Return the rule for a layer whose input has this ``E[x^2]`` per channel."""
        if self.name != "weighted" or mean_square is None:
            return self
        return SweepRule(self.name, weights_of_input(mean_square))


def weights_of_input(mean_square: torch.Tensor) -> torch.Tensor:
    """Return ``E[x^2] / mean(E[x^2]) + 0.3`` per channel, float32 ``[in]``.

    The first term is the channel's share in the output error. The second term limits the weight
    error, because the first alone would ignore channels with small inputs in the calibration. With
    0.3, the output error is almost as small as possible, and the weight error is still smaller than
    with the max rule.
    """
    values = mean_square.float()
    mean = values.mean()
    return values / mean + _EVEN_WEIGHT if float(mean) > 0 else torch.ones_like(values)
