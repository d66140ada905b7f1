"""From a ``comfy_quant`` marker to the format that decodes the layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Shapes, WeightFormat
from .registry import FORMATS


def format_of_marker(
    marker: Mapping[str, Any], shapes: Shapes | None = None
) -> WeightFormat | None:
    """Return the format a marker names, or None if this pack lacks it.

    Args:
        marker: the JSON object of the layer.
        shapes: of the layer's stored tensors by suffix: an int8 marker does not say whether the
            scale is per tensor or per row.
    """
    for fmt in FORMATS.values():
        found = fmt.of_marker(marker, shapes or {})
        if found is not None:
            return found
    # full_precision_matrix_mult is valid on any format and changes nothing about storage.
    return next((fmt for fmt in FORMATS.values() if fmt.is_named_by(marker)), None)
