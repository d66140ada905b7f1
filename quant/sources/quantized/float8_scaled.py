"""The older ``scaled_fp8`` convention: no markers, but a ``scale_weight`` per weight."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod

import torch

from ...formats import FORMATS
from ..base import TensorInfo, TensorSource, dtype_name
from ..stored_weight import StoredWeight
from .convention import Found
from .parts import FLOAT8, float8_input_amax, layers_with, names_of, number
from .scaled_codes import require_scales_fit, scaled_weight

#: A tensor of this name, after the model's prefix, marks such a file.
FILE_MARKER = "scaled_fp8"
E5M2 = "float8_e5m2"  # this format always multiplies in 16 bits


class Float8Scaled:
    """A ``scale_weight`` beside each weight, and one marker for the file."""

    label = "scaled_fp8"
    reference = "Comfy-Org/ComfyUI: convert_old_quants in comfy/utils.py"

    def find(self, source: TensorSource) -> Found:
        """Find weights with a ``scale_weight``. A ``scale_input`` of 1.0 means no input scale."""
        marker = source.tensors.get(FILE_MARKER)
        return {
            f"{layer}.weight": partial(_stored_weight, source, layer, marker)
            for layer in layers_with(source, "scale_weight", "weight")
        }


def _stored_weight(source: TensorSource, layer: str, marker: TensorInfo | None) -> StoredWeight:
    weight, scale = source.info(f"{layer}.weight"), source.info(f"{layer}.scale_weight")
    require_scales_fit(source, weight, scale)
    names = names_of(source, layer, "weight", "scale_weight", "scale_input")
    per_tensor = len(weight.shape) == 2 and prod(scale.shape) == 1
    # As in ComfyUI, a marker of two elements asks for products in 16 bits.
    in_16_bits = marker is not None and prod(marker.shape) == 2
    fmt = None
    if weight.dtype in FLOAT8 and per_tensor:
        name = dtype_name(weight.dtype)
        fmt = FORMATS[f"{name}_w8a16" if in_16_bits and name != E5M2 else name]

    def input_amax() -> float | None:
        inputs = weight.dtype if weight.dtype in FLOAT8 else torch.float8_e4m3fn
        return float8_input_amax(number(source, layer, "scale_input"), inputs)

    kind = dtype_name(weight.dtype)
    stored = scaled_weight(source, f"{kind} (scaled_fp8)", (weight, scale), names, fmt, input_amax)
    # ComfyUI reads every weight of a marked file as E4M3.
    reads = marker is not None and per_tensor and weight.dtype == torch.float8_e4m3fn
    return replace(stored, comfyui_reads=reads)
