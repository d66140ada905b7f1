"""NVFP4 of ModelOpt: the even column in the low half of a byte, scales in rows."""

from __future__ import annotations

from functools import partial

import torch

from ...formats.nvfp4_scales import NVFP4_MAX
from ..base import TensorSource
from ..stored_weight import StoredWeight
from .convention import Found
from .linear_nvfp4 import LinearNVFP4, stored_nvfp4
from .parts import layers_with, names_of, number


class ModelOpt:
    """NVFP4 as ModelOpt exports it."""

    label = "ModelOpt"
    reference = "NVIDIA/Model-Optimizer: modelopt/torch/quantization/qtensor/nvfp4_tensor.py"

    def find(self, source: TensorSource) -> Found:
        """Find uint8 weights with ``weight_scale`` and ``weight_scale_2`` and no marker.

        Such a file does not name its tool. But ComfyUI's NVFP4 layers always have a marker, so the
        layout must be ModelOpt's.
        """
        return {
            f"{layer}.weight": partial(_stored_weight, source, layer)
            for layer in layers_with(source, "weight_scale_2", "weight_scale", "weight")
            if source.info(f"{layer}.weight").dtype == torch.uint8
        }


def _stored_weight(source: TensorSource, layer: str) -> StoredWeight:
    def tensor_scale() -> float:
        return number(source, layer, "weight_scale_2") or 0.0

    def input_amax() -> float | None:
        scale = number(source, layer, "input_scale")
        return None if scale is None else scale * NVFP4_MAX

    names = names_of(source, layer, "weight", "weight_scale", "weight_scale_2", "input_scale")
    layout = LinearNVFP4(f"{layer}.weight", f"{layer}.weight_scale", tensor_scale)
    return stored_nvfp4(source, layout, "nvfp4 (ModelOpt)", names, input_amax)
