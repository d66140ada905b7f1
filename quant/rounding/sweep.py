"""Scales searched for the least squared error, every input channel alike or by its energy."""

from __future__ import annotations

import torch

from ..formats.base import ErrorFeedback
from .second_moments import SecondMoments

# What every channel counts at least, in units of the mean channel.
_EVEN_WEIGHT = 0.3


class SweepRule:
    """Least squared error, per input channel weighted or not.

    With ``channel_weights`` (float32 ``[in]``) the error of a channel counts that much: see
    `weights_of_input`.
    """

    searches = True
    feedback: ErrorFeedback | None = None

    def __init__(self, name: str, channel_weights: torch.Tensor | None = None):
        self.name = name
        self.channel_weights = channel_weights

    def for_input(
        self, mean_square: torch.Tensor | None, moments: SecondMoments | None = None
    ) -> SweepRule:
        """Return the rule for a layer whose input has this ``E[x^2]`` per channel."""
        if self.name != "weighted" or mean_square is None:
            return self
        return SweepRule(self.name, weights_of_input(mean_square))


def weights_of_input(mean_square: torch.Tensor) -> torch.Tensor:
    """Return ``E[x^2] / mean(E[x^2]) + 0.3`` per channel, float32 ``[in]``.

    The first term is the error's share in the layer's output, the second keeps the weight itself
    close: with the first alone channels that were quiet in calibration are given up. At 0.3 the
    output gains nearly all there is to gain, and the weight is still nearer than with the max
    rule.
    """
    values = mean_square.float()
    mean = values.mean()
    return values / mean + _EVEN_WEIGHT if float(mean) > 0 else torch.ones_like(values)
