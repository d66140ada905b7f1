"""Markers in ComfyUI's style that ComfyUI does not know, and markers without a format.

convert_to_quant writes such files: the names of its formats are in its ``constants.py``
(silveroxides/convert_to_quant: convert_to_quant/constants.py, VALID_QUANT_FORMATS). Other tools
write ComfyUI's ``float8_e4m3fn`` and ``int8_tensorwise`` with scales per row or per group, which
those formats do not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch

from ...errors import CheckpointError, SourceError
from ...formats import get_format
from ...formats.base import is_full_precision, marker_parameter, roundup
from ...formats.tiles import tiled_shape
from ..base import TensorInfo, TensorSource, dtype_name
from ..stored_layers import INPUT_SCALE, MARKER, StoredLayer
from ..stored_weight import StoredWeight
from .input_scales import code_input_amax
from .parts import FLOAT8, names_of
from .pre_quant_scale import PRE_QUANT_SCALE, with_pre_quant_scale
from .scaled_codes import CodesAndScales, require_scales_fit, scaled_weight

#: Formats of markers that ComfyUI does not know and that are read, and the dtype of their codes.
FOREIGN: Mapping[str, torch.dtype] = {
    "float8_e4m3fn_rowwise": torch.float8_e4m3fn,
    "float8_e4m3fn_blockwise": torch.float8_e4m3fn,
    "float8_e4m3fn_block3d": torch.float8_e4m3fn,
    "int8_blockwise": torch.int8,
    "hybrid_mxfp8": torch.float8_e4m3fn,
}
# Formats of ComfyUI that other tools use for codes with scales of any shape.
_BASES: Mapping[str, torch.dtype] = {
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
    "int8_tensorwise": torch.int8,
}
#: A hybrid repeats the largest block scale as a scale per tensor, for older GPUs.
REPEATED = ("weight_scalar",)
_NO_SUCH_FORMAT = (
    "have a format or scales that ComfyUI itself does not load ({}); only a conversion makes them "
    "usable there"
)


def foreign_weight(source: TensorSource, layer: StoredLayer) -> StoredWeight | None:
    """Describe the weight of a layer whose marker ComfyUI would not understand; None for others.

    Raises:
        SourceError: the scales do not fit the weight.
        CheckpointError: the weight has another dtype than the marker says, or no scales.
    """
    marker = layer.marker or {}
    name = str(marker.get("format"))
    if name == "hybrid_mxfp8":
        return None  # see `as_known`
    if name in FOREIGN:
        dtype = FOREIGN[name]
    elif name in _BASES and not _has_own_scales(layer):
        dtype = _BASES[name]
    else:
        return None
    scale = layer.tensors.get("weight_scale")
    if scale is None or layer.weight.dtype != dtype:
        found = "has no weight_scale" if scale is None else f"has a weight of {layer.weight.dtype}"
        raise CheckpointError(
            f"{source.description} is damaged: {layer.name} is marked as {name}, but {found}; "
            "fetch it again, or start from another version of the model"
        )
    if marker_parameter(marker, "convrot", False):
        raise SourceError(
            f"{source.description}: {layer.name} is rotated (convrot) and has scales "
            f"{scale.shape}, a combination that is not read; start from the 16-bit file"
        )
    return _coded(source, layer, name, scale)


def as_known(layer: StoredLayer) -> StoredLayer:
    """Return a layer with the format of ComfyUI that stores the same, where there is one."""
    marker = dict(layer.marker or {})
    if marker.get("format") == "hybrid_mxfp8":
        return replace(layer, marker={**marker, "format": "mxfp8"})
    return layer


def remark_of(name: str) -> str:
    """Return what users should know about weights of a format that ComfyUI does not load."""
    return _NO_SUCH_FORMAT.format(name)


def _coded(source: TensorSource, layer: StoredLayer, name: str, scale: TensorInfo) -> StoredWeight:
    weight = layer.weight
    kind = f"{name} with {len(scale.shape)}-D scales" if name in _BASES else name
    group = marker_parameter(layer.marker or {}, "group_size", None)
    group = group if isinstance(group, int) else None
    require_scales_fit(source, weight, scale, group)
    names = names_of(
        source, layer.name, "weight", "weight_scale", MARKER, INPUT_SCALE, PRE_QUANT_SCALE
    )
    in_16_bits = is_full_precision(layer.marker)
    by_row = weight.dtype == torch.int8 and scale.shape == (*weight.shape[:1], 1)
    stored = scaled_weight(
        kind,
        CodesAndScales(source, weight, scale, group),
        names,
        get_format("int8_rowwise") if by_row and not in_16_bits else None,
        lambda: code_input_amax(source, layer.name, INPUT_SCALE, weight.dtype),
    )
    stored = replace(stored, remark=remark_of(kind))
    return with_pre_quant_scale(source, layer.name, stored)


def _has_own_scales(layer: StoredLayer) -> bool:
    """Whether the scales have a shape that ComfyUI's format has."""
    scale, shape = layer.tensors.get("weight_scale"), layer.weight.shape
    if scale is None or len(shape) != 2 or prod(scale.shape) == 1:
        return True
    is_int8 = layer.weight.dtype == torch.int8
    return is_int8 and scale.shape in ((shape[0],), (shape[0], 1))


def inferred_format(source: TensorSource, layer: StoredLayer) -> str:
    """Return the format of a marker that names none, where dtypes and shapes allow only one.

    Raises:
        SourceError: several formats are possible, or none.
    """
    weight, tensors = layer.weight, layer.tensors
    scale = tensors.get("weight_scale")
    if scale is not None and len(weight.shape) == 2:
        if weight.dtype == torch.uint8 and "weight_scale_2" in tensors:
            return "nvfp4"
        if weight.dtype == torch.float8_e4m3fn and scale.dtype.itemsize == 1:
            rows, columns = (roundup(size, 32) for size in weight.shape)
            if scale.shape == tiled_shape(rows, columns // 32):
                return "mxfp8"
        if weight.dtype in FLOAT8 and scale.dtype.itemsize > 1:
            return dtype_name(weight.dtype)
        if weight.dtype == torch.int8 and scale.dtype.itemsize > 1:
            if "linear_dtype" in (layer.marker or {}):
                return "convrot_w4a4"
            if scale.shape != weight.shape[:1]:  # else the codes could be two in each byte
                return "int8_tensorwise"
    parts = ", ".join(
        f"{suffix} {dtype_name(info.dtype)} {info.shape}" for suffix, info in tensors.items()
    )
    raise SourceError(
        f"{source.description}: the marker {layer.name}.comfy_quant names no format, and its "
        f"tensors ({parts}) do not show which it is; start from the bf16, fp16 or fp8 version of "
        "the model"
    )
