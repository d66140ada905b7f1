"""The older ``scaled_fp8`` convention: no markers, but a ``scale_weight`` per weight."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod

import torch

from ...errors import SourceError
from ...formats import FORMATS
from ..base import TensorInfo, TensorSource, dtype_name
from ..stored_weight import StoredWeight
from .convention import Found
from .foreign_markers import remark_of
from .input_scales import code_input_amax
from .parts import FLOAT8, layers_with, names_of, part
from .scaled_codes import CodesAndScales, require_scales_fit, scaled_weight

#: A tensor of this name, after the model's prefix, marks such a file.
FILE_MARKER = "scaled_fp8"
#: convert_to_quant marks files of int8 codes with the other one.
FILE_MARKERS = frozenset({FILE_MARKER, "scaled_int8"})
#: Multiplies all of a weight's ``scale_weight``.
SECOND_SCALE = "scale_weight_tensor"
E5M2 = "float8_e5m2"  # this format always multiplies in 16 bits


class Float8Scaled:
    """A ``scale_weight`` beside each weight, and one marker for the file."""

    label = "scaled_fp8"
    reference = (
        "Comfy-Org/ComfyUI: convert_old_quants in comfy/utils.py; "
        "kohya-ss/musubi-tuner: src/musubi_tuner/modules/fp8_optimization_utils.py"
    )

    def find(self, source: TensorSource) -> Found:
        """Find weights with a ``scale_weight``. A ``scale_input`` of 1.0 means no input scale.

        kohya's tools write a scale per row, or one per block of columns: ``[out, blocks, 1]``,
        which ``scale_weight_tensor`` may multiply.
        """
        marker = source.tensors.get(FILE_MARKER)
        return {
            f"{layer}.weight": partial(_stored_weight, source, layer, marker)
            for layer in layers_with(source, "scale_weight", "weight")
        }


def _stored_weight(source: TensorSource, layer: str, marker: TensorInfo | None) -> StoredWeight:
    weight, scale = source.info(f"{layer}.weight"), source.info(f"{layer}.scale_weight")
    second = part(source, layer, SECOND_SCALE)
    require_scales_fit(source, weight, scale)
    if second is not None and prod(second.shape) != 1:
        raise SourceError(
            f"{source.description}: {second.name} has the shape {second.shape}, but one number is "
            "expected; start from another version of the model"
        )
    names = names_of(source, layer, "weight", "scale_weight", "scale_input", SECOND_SCALE)
    per_tensor = len(weight.shape) == 2 and prod(scale.shape) == 1 and second is None
    # As in ComfyUI, a marker of two elements asks for products in 16 bits.
    in_16_bits = marker is not None and prod(marker.shape) == 2
    fmt = None
    if weight.dtype in FLOAT8 and per_tensor:
        name = dtype_name(weight.dtype)
        fmt = FORMATS[f"{name}_w8a16" if in_16_bits and name != E5M2 else name]
    inputs = weight.dtype if weight.dtype in FLOAT8 else torch.float8_e4m3fn
    kind = f"{dtype_name(weight.dtype)} (scaled_fp8)"
    stored = scaled_weight(
        kind,
        CodesAndScales(source, weight, scale, second=second),
        names,
        fmt,
        lambda: code_input_amax(source, layer, "scale_input", inputs),
    )
    # ComfyUI reads every weight of a marked file as E4M3.
    reads = marker is not None and per_tensor and weight.dtype == torch.float8_e4m3fn
    remark = "" if per_tensor else remark_of("scale_weight per row or per block")
    return replace(stored, comfyui_reads=reads, remark=remark)
