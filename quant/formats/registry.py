"""The registry of formats by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import FormatError
from .asym_w4a8_int8 import AsymW4A8Int8
from .base import WeightFormat
from .convrot_w4a4 import ConvRotW4A4
from .float8 import Float8E4M3, Float8E4M3W8A16, Float8E5M2
from .int8 import Int8, RotatedInt8
from .mxfp8 import MXFP8
from .nvfp4 import NVFP4, NVFP4W4A16
from .nvfp4_smooth import NVFP4Smooth
from .plain import Plain

KEEP = Plain("keep", None, 0.0)

FORMATS: Mapping[str, WeightFormat] = {
    fmt.name: fmt
    for fmt in (
        NVFP4(),
        NVFP4W4A16(),
        Float8E4M3(),
        Plain("bf16", torch.bfloat16, 2.0**-8),
        # fp16 flushes values below 6e-8 to zero. Weights that small have no effect.
        Plain("fp16", torch.float16, 2.0**-8),
        Plain("fp32", torch.float32, 0.0),
        KEEP,
        # Large bounds, because one outlier decides the scale of a whole tensor or of its row.
        Int8("int8_tensorwise", 0.7, per_row=False),
        Int8("int8_rowwise", 0.3, per_row=True),
        RotatedInt8("int8_convrot", 0.05),
        ConvRotW4A4("convrot_w4a4"),
        ConvRotW4A4("convrot_w4a8", linear_dtype="int8"),
        MXFP8(),
        Float8E4M3W8A16(),
        Float8E5M2(),
        AsymW4A8Int8(),
        NVFP4Smooth(),
    )
}


def get_format(name: str) -> WeightFormat:
    """Return a format by name.

    Raises:
        FormatError: the name is unknown; the message lists the formats.
    """
    try:
        return FORMATS[name]
    except KeyError:
        raise FormatError(
            f"unknown format {name!r}; the formats are {', '.join(FORMATS)}"
        ) from None
