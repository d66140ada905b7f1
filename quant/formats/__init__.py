"""How each precision is stored: one file per format behind `WeightFormat`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import FormatError
from .base import EncodedWeight, ScaleRule, TensorSpec, WeightFormat
from .float8 import Float8E4M3
from .nvfp4 import NVFP4, NVFP4W4A16
from .plain import Plain

KEEP = Plain("keep", None, 0.0)

FORMATS: Mapping[str, WeightFormat] = {
    fmt.name: fmt
    for fmt in (
        NVFP4(),
        NVFP4W4A16(),
        Float8E4M3(),
        Plain("bf16", torch.bfloat16, 2.0**-8),
        # fp16 flushes values below 6e-8; weights that small carry no signal.
        Plain("fp16", torch.float16, 2.0**-8),
        Plain("fp32", torch.float32, 0.0),
        KEEP,
    )
}


def get_format(name: str) -> WeightFormat:
    """Return a format by name.

    Raises:
        FormatError: unknown name; the message lists the known ones.
    """
    try:
        return FORMATS[name]
    except KeyError:
        raise FormatError(
            f"unknown format {name!r}; the formats are {', '.join(FORMATS)}"
        ) from None


def format_of_marker(marker: Mapping[str, Any]) -> WeightFormat | None:
    """Return the format a ``comfy_quant`` marker names, or None if this pack lacks it."""
    wanted = (marker.get("format"), bool(marker.get("full_precision_matrix_mult")))
    for fmt in FORMATS.values():
        if fmt.marker is None:
            continue
        if (fmt.marker["format"], bool(fmt.marker.get("full_precision_matrix_mult"))) == wanted:
            return fmt
    # full_precision_matrix_mult is valid on any format and changes nothing about storage.
    return FORMATS.get(str(wanted[0]))


__all__ = [
    "FORMATS",
    "KEEP",
    "EncodedWeight",
    "ScaleRule",
    "TensorSpec",
    "WeightFormat",
    "format_of_marker",
    "get_format",
]
