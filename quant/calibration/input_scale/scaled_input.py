"""Static scales of layers whose input is multiplied by a factor per channel first."""

from __future__ import annotations

import torch

from ..records import LayerStatistics


def scaled_input_ratio(factors: torch.Tensor, layer: LayerStatistics) -> float:
    """Return the largest input times its factor, relative to the largest input.

    A static scale that was chosen for the input itself, times this ratio, has the same headroom.
    The largest value of each channel over all tokens of the calibration decides.

    Args:
        factors: ``pre_quant_scale`` of the layer, ``[in]``.
        layer: the statistics of its input.
    """
    amax = torch.from_numpy(layer.channel_amax)
    largest = float(amax.max()) if len(amax) else 0.0
    scaled = amax * factors.float().cpu().reshape(-1)
    return float(scaled.max()) / largest if largest > 0 else 1.0
