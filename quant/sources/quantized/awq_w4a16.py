"""``awq_w4a16``: 4-bit weights with a scale and a centre per group, which newer ComfyUIs load.

comfy-kitchen multiplies it (comfy_kitchen/tensor/awq_w4a16.py), and the converter of ComfyUI's
makers writes it (Comfy-Org/comfy-quants: docs/formats/awq_w4a16.md). It is only read: making it
needs AWQ's own calibration.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...errors import CheckpointError
from ...formats.base import marker_parameter
from ..base import TensorInfo, TensorSource
from ..stored_layers import INPUT_SCALE, MARKER, StoredLayer
from ..stored_weight import StoredWeight
from .parts import names_of
from .pre_quant_scale import PRE_QUANT_SCALE, with_pre_quant_scale

AWQ_W4A16 = "awq_w4a16"
#: What its group centres are called: by the converter, and by comfy-kitchen.
ZEROS = ("weight_zero", "weight_zeros")
_SCALES = "weight_scale"
_GROUP = 64
_MIDDLE = 8.0
_REMARK = (
    f"are stored as {AWQ_W4A16}, which ComfyUI 0.33 and older do not load; only a conversion makes "
    "them usable there"
)


def awq_weight(source: TensorSource, layer: StoredLayer) -> StoredWeight | None:
    """Describe the weight of a layer that is marked as ``awq_w4a16``; None for other layers.

    Raises:
        CheckpointError: tensors are missing or do not fit the marker.
    """
    if (layer.marker or {}).get("format") != AWQ_W4A16:
        return None
    scales = layer.tensors.get(_SCALES)
    zeros = next((layer.tensors[name] for name in ZEROS if name in layer.tensors), None)
    group = _group(layer)
    problem = _problem(layer.weight, scales, zeros, group)
    if problem or scales is None or zeros is None:
        raise CheckpointError(
            f"{source.description} is damaged: {layer.name} is marked as {AWQ_W4A16}, but "
            f"{problem}; fetch it again, or start from another version of the model"
        )
    rows, width = layer.weight.shape
    parts = (layer.weight, scales, zeros)
    names = names_of(
        source, layer.name, "weight", _SCALES, *ZEROS, MARKER, INPUT_SCALE, PRE_QUANT_SCALE
    )

    def read() -> Callable[[slice], torch.Tensor]:
        packed, scale, zero = (source.load(info.name) for info in parts)
        return lambda part: decode_awq(packed, scale, zero, part)

    stored = StoredWeight(
        label=AWQ_W4A16,
        shape=(rows, width * 2),
        names=names,
        nbytes=sum(source.info(name).nbytes for name in names),
        read=read,
        remark=_REMARK,
    )
    return with_pre_quant_scale(source, layer.name, stored)


def decode_awq(
    packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, rows: slice
) -> torch.Tensor:
    """Return ``(code - 8) * scale + zero`` of some rows, float32 ``[rows, in]``.

    Args:
        packed: ``[out, in / 2]`` bytes, the even column in the low nibble, codes from 0 to 15.
        scales: ``[in / group, out]``.
        zeros: the values of code 8, ``[in / group, out]``.
        rows: the rows to decode.
    """
    codes = packed[rows].view(torch.uint8)
    values = torch.stack([codes & 0x0F, codes >> 4], dim=-1).float()
    groups = values.view(len(codes), len(scales), -1)
    scale, zero = (part.float()[:, rows].t().unsqueeze(-1) for part in (scales, zeros))
    return groups.sub_(_MIDDLE).mul_(scale).add_(zero).view(len(codes), -1)


def _group(layer: StoredLayer) -> int:
    """Return the group size of the marker; 0 if it is no positive number."""
    size = marker_parameter(layer.marker or {}, "group_size", _GROUP)
    return size if isinstance(size, int) and size > 0 else 0


def _problem(
    weight: TensorInfo, scales: TensorInfo | None, zeros: TensorInfo | None, group: int
) -> str:
    """Return what is wrong with the tensors of a layer; empty if nothing is."""
    if len(weight.shape) != 2 or weight.dtype not in (torch.int8, torch.uint8):
        return f"its weight is {weight.dtype} {weight.shape}, not packed bytes"
    rows, columns = weight.shape[0], weight.shape[1] * 2
    if not group or columns % group:
        return f"its {columns} columns do not divide into groups of {group}"
    for name, info in ((_SCALES, scales), (ZEROS[0], zeros)):
        if info is None:
            return f"{name} is missing"
        if info.shape != (columns // group, rows):
            return f"{name} has the shape {info.shape}, not {(columns // group, rows)}"
        if not info.dtype.is_floating_point or info.dtype.itemsize < 2:
            return f"{name} is {info.dtype}"
    return ""
