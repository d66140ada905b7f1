"""The max rule: the largest value of each block maps to the largest code."""

from __future__ import annotations

import torch

from .second_moments import SecondMoments


class MaxRule:
    """Scales from absolute maxima.

    For NVFP4, ``tensor_scale = amax / 2688`` and
    ``block_scale = e4m3(block_amax / 6 / tensor_scale)``. In each format, the operations and their
    order are those of comfy-kitchen, so codes and scales agree bit for bit.
    """

    name = "max"
    searches = False
    channel_weights = None
    feedback = None

    def for_input(
        self, mean_square: torch.Tensor | None, moments: SecondMoments | None = None
    ) -> MaxRule:
        """Return the rule itself, because it does not depend on inputs."""
        return self
