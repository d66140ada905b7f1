"""NVFP4 of ModelOpt: the even column in the low half of a byte, scales in rows."""

from __future__ import annotations

from ...formats.nvfp4_scales import NVFP4_MAX
from ..base import TensorSource
from ..stored_weight import StoredWeight
from .input_scales import input_amax_of
from .linear_nvfp4 import LinearNVFP4, stored_nvfp4
from .parts import names_of, one_number
from .pre_quant_scale import PRE_QUANT_SCALE, with_pre_quant_scale


def modelopt_weight(source: TensorSource, layer: str) -> StoredWeight:
    """Describe a weight as ModelOpt exports it.

    Raises:
        SourceError: the shapes of its tensors do not fit together.
    """

    def tensor_scale() -> float:
        return one_number(source, layer, "weight_scale_2")

    def input_amax() -> float | None:
        return input_amax_of(source, layer, "input_scale", NVFP4_MAX)

    names = names_of(
        source, layer, "weight", "weight_scale", "weight_scale_2", "input_scale", PRE_QUANT_SCALE
    )
    layout = LinearNVFP4(f"{layer}.weight", f"{layer}.weight_scale", tensor_scale)
    stored = stored_nvfp4(source, layout, "nvfp4 (ModelOpt)", names, input_amax)
    return with_pre_quant_scale(source, layer, stored)
