"""int8 codes without markers that are not what they seem: rotated ones, and two in a byte.

ComfyUI's formats ``int8_tensorwise`` with ``convrot`` and ``convrot_w4a4`` differ from plain int8
only by their markers. A file of them that was saved again without markers would be read as noise of
the right size, or as matrices of half the width.
"""

from __future__ import annotations

from collections.abc import Collection
from math import sqrt

import torch

from ...errors import SourceError
from ...formats.rotation import GROUPS, rotate
from ..base import TensorSource

# Layers to look at, and rows of each.
_LAYERS, _ROWS = 12, 256
# How much nearer to a normal distribution codes are than codes that are rotated back, in standard
# deviations of what normal weights show: 196 to 210 in the rotated demo model, below 3 in random
# weights.
_MARGIN = 15.0
# Codes that use their range have each low half of a byte about equally often. Of two codes in a
# byte, values near zero are much more frequent.
_LEAST_RMS, _LARGEST_SHARE = 24.0, 0.09


def require_plain_int8(source: TensorSource, weights: Collection[str]) -> None:
    """Refuse a file whose int8 weights without markers are rotated, or hold two codes in a byte.

    Raises:
        SourceError: the message names the format that the file seems to have.
    """
    matrices = [
        name
        for name in weights
        if source.info(name).dtype == torch.int8 and len(source.info(name).shape) == 2
    ]
    chosen = matrices[:: max(1, len(matrices) // _LAYERS)][:_LAYERS]
    samples = [codes for codes in (_sample(source, name) for name in chosen) if codes.numel()]
    if not samples:
        return
    if 2 * sum(_is_packed(codes) for codes in samples) > len(samples):
        kind, sign = "convrot_w4a4", "two 4-bit codes in a byte"
    elif (group := _rotated_by(samples)) is not None:
        kind, sign = "int8_convrot", f"codes that are rotated in groups of {group}"
    else:
        return
    raise SourceError(
        f"{source.description}: {matrices[0]} and others have no markers, but look like {kind} "
        f"({sign}) that lost its markers; read as plain int8, all weights would be wrong. Start "
        "from the file as it was made, or from another version of the model"
    )


def _sample(source: TensorSource, name: str) -> torch.Tensor:
    """Return some rows of a matrix of codes."""
    rows, columns = source.info(name).shape
    count = min(rows, _ROWS)
    starts = [row * rows // count * columns for row in range(count)]
    return source.load_runs(name, starts, columns) if count and columns else torch.empty(0)


def _is_packed(codes: torch.Tensor) -> bool:
    if float(codes.float().square().mean()) < _LEAST_RMS**2:
        return False
    counts = torch.bincount((codes.flatten().int() & 15), minlength=16)
    return float(counts.max()) / codes.numel() > _LARGEST_SHARE


def _rotated_by(samples: list[torch.Tensor]) -> int | None:
    """Return the size of the groups in which these codes are rotated; None if they are not."""
    for group in GROUPS:
        fitting = [codes.float() for codes in samples if codes.shape[1] % group == 0]
        scores = [
            (_distance(rotate(codes, group)) - _distance(codes)) / sqrt(48 / codes.numel())
            for codes in fitting
        ]
        if scores and sum(scores) / sqrt(len(scores)) > _MARGIN:
            return group
    return None


def _distance(values: torch.Tensor) -> float:
    """Return how far the rows of a matrix are from normal: the magnitude of the excess kurtosis.

    A rotation adds up many values, which always brings them nearer to normal.
    """
    rows = values / values.square().mean(1, keepdim=True).sqrt().clamp(min=1e-30)
    return abs(float(rows.double().pow(4).mean()) - 3.0)
