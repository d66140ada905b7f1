"""Find the format that decodes a layer, by its ``comfy_quant`` marker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Shapes, WeightFormat
from .registry import FORMATS


def marked_names() -> tuple[str, ...]:
    """Return the names of formats that markers use and `format_of_marker` knows."""
    names = (fmt.marker["format"] for fmt in FORMATS.values() if fmt.marker is not None)
    return tuple(dict.fromkeys(names))


def format_of_marker(
    marker: Mapping[str, Any], shapes: Shapes | None = None
) -> WeightFormat | None:
    """Return the format that a marker names, or None if the registry lacks it.

    Args:
        marker: the JSON object of the layer.
        shapes: shapes of the layer's stored tensors by suffix. They are needed for int8, whose
            marker does not tell scales per tensor from scales per row.
    """
    for fmt in FORMATS.values():
        found = fmt.of_marker(marker, shapes or {})
        if found is not None:
            return found
    # full_precision_matrix_mult is valid in every marker and does not change the storage.
    return next((fmt for fmt in FORMATS.values() if fmt.is_named_by(marker)), None)
