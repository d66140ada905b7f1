"""Whose NVFP4 layout a file has, by how its block scales vary.

In a trained weight, some rows and some blocks of columns are larger than others. Scales that are
read in their true order follow that: their rows and columns explain a share of their variance. Read
in another order, rows and columns are mixtures, which explain less. Weights whose rows are all
alike, such as those of a random initialisation, show nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

import torch

from ...formats.tiles import untile
from ..base import TensorSource
from .layout_evidence import COMFYUI, MODELOPT

# Layers and scales to read. 2^25 scales are those of 30 layers of 4096 x 4096.
_LAYERS, _SCALES = 48, 1 << 25
#: How large the sum over all layers must be, in standard deviations of what weights without any
#: structure show. Such weights stay below 3; the demo model reaches 180.
MARGIN = 10.0
# A layer counts as a vote from here on, and so many votes must agree.
_VOTE, _AGREE = 3.0, 0.9
_LEAST_SCALE = 2.0**-9  # the smallest positive E4M3 number


@dataclass(frozen=True)
class LayoutStatistics:
    """What the scales of some layers show.

    ``score`` is positive for ModelOpt's rows and negative for ComfyUI's tiles, in standard
    deviations of weights without structure. ``votes`` has the same for each layer.
    """

    score: float
    votes: tuple[float, ...]

    @property
    def layout(self) -> str | None:
        """The layout that the scales show; None if they do not show any."""
        if abs(self.score) < MARGIN:
            return None
        loud = [vote for vote in self.votes if abs(vote) >= _VOTE]
        agreeing = sum((vote > 0) == (self.score > 0) for vote in loud)
        if agreeing < _AGREE * len(loud):
            return None
        return MODELOPT if self.score > 0 else COMFYUI


def layout_statistics(source: TensorSource, layers: list[str]) -> LayoutStatistics:
    """Read the block scales of some of these layers, whose shapes allow both layouts."""
    total, freedom, read, votes = 0.0, 0, 0, []
    for layer in layers[:: max(1, len(layers) // _LAYERS)]:
        info = source.info(f"{layer}.weight_scale")
        rows, columns = info.shape
        read += rows * columns
        if votes and read > _SCALES:
            break
        gain = likelihood_gain(source.load(info.name).view(torch.float8_e4m3fn))
        parameters = rows + columns - 2
        votes.append(gain / sqrt(parameters) if parameters else 0.0)
        total, freedom = total + gain, freedom + parameters
    return LayoutStatistics(total / sqrt(freedom) if freedom else 0.0, tuple(votes))


def likelihood_gain(scales: torch.Tensor) -> float:
    """Return how much more likely rows of scales are than tiles, as a logarithm.

    The model is that of an analysis of variance: each log2 of a scale is the sum of a number for
    its row, one for its column, and normal noise.

    Args:
        scales: float8_e4m3fn ``[rows, blocks]``, of a shape that both layouts allow.
    """
    rows, blocks = scales.shape
    tiles = untile(scales, slice(0, rows), blocks).view(torch.float8_e4m3fn)
    in_rows, in_tiles = (_explained(order) for order in (scales, tiles))
    least = 1e-12  # what a model that explains everything leaves
    return scales.numel() / 2 * log(max(1 - in_tiles, least) / max(1 - in_rows, least))


def _explained(scales: torch.Tensor) -> float:
    """Return the share of the variance of log2 scales that rows and columns explain."""
    values = scales.float().nan_to_num_(_LEAST_SCALE).clamp_(min=_LEAST_SCALE).log2_()
    values -= values.mean(dtype=torch.float64).float()
    variance = float(values.square().mean(dtype=torch.float64))
    if not variance:
        return 0.0
    explained = values.mean(1).double().square().mean() + values.mean(0).double().square().mean()
    return float(explained) / variance
