"""NVFP4 of LightX2V: the even column in the low half of a byte, scales in cuBLAS tiles."""

from __future__ import annotations

from functools import partial

import torch

from ...formats.nvfp4_scales import NVFP4_MAX
from ..base import TensorSource
from ..stored_weight import StoredWeight
from .convention import Found
from .input_scales import is_usable
from .linear_nvfp4 import LinearNVFP4, stored_nvfp4
from .parts import layers_with, names_of, number, one_number, part


class LightX2V:
    """NVFP4 of LightX2V's older and newer files."""

    label = "LightX2V"
    reference = "ModelTC/LightX2V: lightx2v/common/ops/mm/mm_weight.py"

    def find(self, source: TensorSource) -> Found:
        """Find uint8 weights with the global scales of LightX2V's older or newer files.

        Older files have ``weight_global_scale`` (a divisor) and ``input_absmax``. Newer files have
        ``input_global_scale`` (2688 / amax) and ``alpha``, which is
        1 / (input_global_scale * weight_global_scale).
        """
        layers = [
            *layers_with(source, "alpha", "input_global_scale", "weight_scale", "weight"),
            *layers_with(source, "weight_global_scale", "weight_scale", "weight"),
        ]
        return {
            f"{layer}.weight": partial(_stored_weight, source, layer)
            for layer in layers
            if source.info(f"{layer}.weight").dtype == torch.uint8
        }


def _stored_weight(source: TensorSource, layer: str) -> StoredWeight:
    def tensor_scale() -> float:
        if part(source, layer, "weight_global_scale") is not None:
            divisor = one_number(source, layer, "weight_global_scale")
            return 1.0 / divisor if divisor else 0.0
        return one_number(source, layer, "alpha") * one_number(source, layer, "input_global_scale")

    def input_amax() -> float | None:
        if part(source, layer, "input_absmax") is not None:
            amax = number(source, layer, "input_absmax") or 0.0
            return amax if is_usable(amax) else None
        divisor = number(source, layer, "input_global_scale")
        amax = NVFP4_MAX / divisor if divisor else 0.0
        return amax if is_usable(amax) else None

    names = names_of(
        source, layer, "weight", "weight_scale", "weight_global_scale", "input_global_scale",
        "input_absmax", "alpha",
    )  # fmt: skip
    layout = LinearNVFP4(f"{layer}.weight", f"{layer}.weight_scale", tensor_scale, tiled=True)
    return stored_nvfp4(source, layout, "nvfp4 (LightX2V)", names, input_amax)
