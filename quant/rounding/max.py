"""The max rule: every block's largest value maps to the largest code."""

from __future__ import annotations

import torch

from .second_moments import SecondMoments


class MaxRule:
    """Scales by absolute maxima alone.

    For NVFP4 ``tensor_scale = amax / 2688``, ``block_scale = e4m3(block_amax / 6 / tensor_scale)``.
    Each format's arithmetic and its order are comfy-kitchen's, so that codes and scales agree bit
    for bit.
    """

    name = "max"
    searches = False
    channel_weights = None
    feedback = None

    def for_input(
        self, mean_square: torch.Tensor | None, moments: SecondMoments | None = None
    ) -> MaxRule:
        """Return the rule itself: inputs do not matter to it."""
        return self
