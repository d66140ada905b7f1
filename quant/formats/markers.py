"""From a ``comfy_quant`` marker to the format that decodes the layer."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from . import convrot_w4a4, int8
from .base import WeightFormat, is_full_precision
from .convrot_w4a4 import ConvRotW4A4
from .int8 import Int8, RotatedInt8
from .registry import FORMATS
from .rotation import is_group_size

# What ComfyUI assumes where a marker is silent (comfy/ops.py).
_DEFAULT_GROUP = 256

Shapes = Mapping[str, tuple[int, ...]]


def format_of_marker(
    marker: Mapping[str, Any], shapes: Shapes | None = None
) -> WeightFormat | None:
    """Return the format a marker names, or None if this pack lacks it.

    Args:
        marker: the JSON object. Parameters may be nested under ``params``, as ComfyUI reads them.
        shapes: of the layer's stored tensors by suffix: an int8 marker does not say whether the
            scale is per tensor or per row.
    """
    name = str(marker.get("format"))
    if name == int8.MARKER_NAME:
        return _int8(marker, shapes or {})
    if name == convrot_w4a4.MARKER_NAME:
        return _convrot_w4a4(marker)
    full_precision = is_full_precision(marker)
    for fmt in FORMATS.values():
        same_name = (fmt.marker or {}).get("format") == name
        if same_name and fmt.is_full_precision == full_precision:
            return fmt
    # full_precision_matrix_mult is valid on any format and changes nothing about storage.
    return FORMATS.get(name)


def _int8(marker: Mapping[str, Any], shapes: Shapes) -> WeightFormat | None:
    per_row = _has_row_scales(shapes)
    if not _parameter(marker, "convrot", False):
        return FORMATS["int8_rowwise" if per_row else "int8_tensorwise"]
    group = _group_size(marker)
    if group is None:
        return None
    own, weight = FORMATS["int8_convrot"], shapes.get("weight")
    assert isinstance(own, Int8)
    if per_row and weight is not None and own.group(weight[1]) == group:
        return own
    return RotatedInt8(own.name, own.error_bound, per_row=per_row or weight is None, group=group)


def _convrot_w4a4(marker: Mapping[str, Any]) -> WeightFormat | None:
    group = _group_size(marker)
    linear_dtype = _parameter(marker, "linear_dtype", "int4")
    names = {"int4": "convrot_w4a4", "int8": "convrot_w4a8"}
    if group is None or linear_dtype not in names:
        return None
    name = names[linear_dtype]
    if group == _DEFAULT_GROUP:
        return FORMATS[name]
    return ConvRotW4A4(name, linear_dtype=linear_dtype, group=group)


def _has_row_scales(shapes: Shapes) -> bool:
    scale, weight = shapes.get("weight_scale"), shapes.get("weight")
    if scale is None or not weight:
        return False
    return scale == (weight[0], 1) or 1 < prod(scale) == weight[0]


def _group_size(marker: Mapping[str, Any]) -> int | None:
    """Return the group size, None if nothing can be rotated by it."""
    value = _parameter(marker, "convrot_groupsize", _DEFAULT_GROUP)
    try:
        size = int(value)
    except (TypeError, ValueError):
        return None
    return size if is_group_size(size) else None


def _parameter(marker: Mapping[str, Any], name: str, default: Any) -> Any:
    nested = marker.get("params")
    fallback = nested.get(name, default) if isinstance(nested, dict) else default
    return marker.get(name, fallback)
