"""NVFP4 of the compressed-tensors library, as in models on the Hugging Face Hub."""

from __future__ import annotations

from functools import partial

from ...formats.nvfp4_scales import NVFP4_MAX
from ..base import TensorSource
from ..stored_weight import StoredWeight
from .convention import Found
from .input_scales import is_usable
from .linear_nvfp4 import LinearNVFP4, stored_nvfp4
from .parts import layers_with, names_of, number, one_number


class CompressedTensors:
    """Weights in ``weight_packed``, with global scales that are divisors."""

    label = "compressed-tensors"
    reference = (
        "neuralmagic/compressed-tensors: "
        "src/compressed_tensors/compressors/quantized_compressors/nvfp4_quantized.py"
    )

    def find(self, source: TensorSource) -> Found:
        """Find weights stored as ``weight_packed``. Their global scales are divisors."""
        return {
            f"{layer}.weight": partial(_stored_weight, source, layer)
            for layer in layers_with(source, "weight_packed", "weight_scale", "weight_global_scale")
        }


def _stored_weight(source: TensorSource, layer: str) -> StoredWeight:
    def tensor_scale() -> float:
        divisor = one_number(source, layer, "weight_global_scale")
        return 1.0 / divisor if divisor else 0.0

    def input_amax() -> float | None:
        divisor = number(source, layer, "input_global_scale")
        amax = NVFP4_MAX / divisor if divisor else 0.0
        return amax if is_usable(amax) else None

    names = names_of(
        source, layer, "weight_packed", "weight_scale", "weight_global_scale",
        "input_global_scale", "weight_shape",
    )  # fmt: skip
    layout = LinearNVFP4(f"{layer}.weight_packed", f"{layer}.weight_scale", tensor_scale)
    return stored_nvfp4(source, layout, "nvfp4 (compressed-tensors)", names, input_amax)
