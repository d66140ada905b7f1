"""int8 with one scale per tensor or per row, rotated or not: ``weight = code * weight_scale``.

ComfyUI stores all variants under one name and multiplies them as int8 on every device. Inside the
product, it rounds the layer's input to int8 with one scale per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch

from ..errors import FormatError
from .base import (
    EncodedWeight,
    Shapes,
    TensorSpec,
    WeightFormat,
    marker_parameter,
    require_finite,
    tensor_amax,
)
from .integer_scales import choose_tensor_scale, row_scales_by
from .integers import (
    INT8_FLOOR,
    INT8_MAX,
    LARGEST_SCALE,
    decode_rows,
    round_inputs_to_int8,
    round_rows,
)
from .rotation import GROUPS, marked_group_size, rotate
from .rule import ScaleRule

MARKER_NAME = "int8_tensorwise"
_LIMITS = (-128.0, INT8_MAX)


class Int8(WeightFormat):
    """8-bit integers; native on Turing and newer GPUs."""

    bits = 8.0
    marker: Mapping[str, Any] | None = {"format": MARKER_NAME}
    rounds_activations = True
    runtime_scale = "per token"
    native_from = (7, 5)  # Turing
    multiplies_integers = True
    kinds = ("linear", "embedding")
    loads_in_banks = True
    for_experts = "float8_e4m3fn_w8a16"
    feedback_block = 1

    def __init__(self, name: str, error_bound: float, *, per_row: bool):
        self.name = name
        self.error_bound = error_bound
        self.per_row = per_row

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Refuse weights that are not 2-D."""
        if len(shape) != 2:
            return f"int8 is for 2-D weights, but this weight has {len(shape)} dimensions"
        return None

    def of_marker(self, marker: Mapping[str, Any], shapes: Shapes) -> WeightFormat | None:
        """Return this format if the marker is not rotated and the shape of the scales fits."""
        if marker.get("format") != MARKER_NAME or marker_parameter(marker, "convrot", False):
            return None
        return self if self.per_row == has_row_scales(shapes) else None

    def is_named_by(self, marker: Mapping[str, Any]) -> bool:
        """Return False, because the name alone does not tell whether the weight is rotated."""
        return False

    def group(self, columns: int) -> int | None:
        """Return how many input channels are rotated together; None if they are not rotated."""
        return None

    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the specs of the codes and of the scales."""
        return {
            "weight": TensorSpec(tuple(shape), torch.int8),
            "weight_scale": TensorSpec((shape[0], 1) if self.per_row else (), torch.float32),
        }

    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Encode in float32 in chunks of rows; for a float32 weight, bit for bit as comfy-kitchen.

        For a bf16 or fp16 weight, comfy-kitchen divides in that dtype and so rounds twice.
        """
        refusal = self.refusal(tuple(weight.shape))
        if refusal:
            raise FormatError(refusal)
        amax = require_finite(tensor_amax(weight))
        group = self.group(weight.shape[1])
        if self.per_row:
            values = weight if group is None else rotate(weight.float(), group)
            result = round_rows(
                values,
                row_scales_by(rule, INT8_MAX, group, weight.device),
                _LIMITS,
                INT8_FLOOR,
                feedback=rule.feedback,
                group=group,
                measure_error=measure_error,
            )
            scale = result.scales.unsqueeze(1)
        else:
            chosen = choose_tensor_scale(weight, amax, INT8_MAX, rule)
            chosen = min(max(chosen, INT8_FLOOR), LARGEST_SCALE)
            scale = torch.full((), chosen, dtype=torch.float32, device=weight.device)
            result = round_rows(
                weight,
                lambda rows, amax: scale.expand(len(rows)),
                _LIMITS,
                INT8_FLOOR,
                feedback=rule.feedback,
                measure_error=measure_error,
            )
        return EncodedWeight({"weight": result.codes, "weight_scale": scale}, result.relative_error)

    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Return float32 values."""
        rows = rows or slice(0, shape[0])
        scale = tensors["weight_scale"].reshape(-1)
        scale = scale if scale.numel() == 1 else scale[rows]
        return decode_rows(tensors["weight"][rows], scale, self.group(shape[1]))

    def emulate_activations(
        self,
        activations: torch.Tensor,
        input_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Round each token to int8, in the rotated basis if the weight is rotated."""
        return round_inputs_to_int8(activations, self.group(activations.shape[1]), dtype)


class RotatedInt8(Int8):
    """int8 in the rotated basis of ConvRot, which spreads outliers of weights and inputs.

    Without ``group``, a layer gets the largest group size that divides its width.
    """

    # ComfyUI's experts lose the rotation of their bank (``_expert_qt_from`` in its ops.py).
    loads_in_banks = False

    def __init__(
        self, name: str, error_bound: float, *, per_row: bool = True, group: int | None = None
    ):
        super().__init__(name, error_bound, per_row=per_row)
        self._group = group
        self.marker = {"format": MARKER_NAME, "convrot": True}

    def group(self, columns: int) -> int | None:
        """Return the group size for a number of input channels."""
        return self._group or next((size for size in GROUPS if columns % size == 0), None)

    def of_marker(self, marker: Mapping[str, Any], shapes: Shapes) -> WeightFormat | None:
        """Return the format of a rotated marker, with the group size of the marker."""
        is_rotated = marker_parameter(marker, "convrot", False)
        if marker.get("format") != MARKER_NAME or not is_rotated:
            return None
        size, per_row, weight = (
            marked_group_size(marker),
            has_row_scales(shapes),
            shapes.get("weight"),
        )
        if size is None:
            return None
        if per_row and weight is not None and self.group(weight[1]) == size:
            return self
        per_row = per_row or weight is None
        return RotatedInt8(self.name, self.error_bound, per_row=per_row, group=size)

    def marker_for(self, shape: tuple[int, ...]) -> Mapping[str, Any]:
        """Return the marker with the group size for this shape."""
        return {"format": MARKER_NAME, "convrot": True, "convrot_groupsize": self.group(shape[1])}

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Refuse widths that no group size divides."""
        size = self._group or GROUPS[-1]
        if len(shape) == 2 and shape[1] % size:
            return f"rotation needs in_features % {size} == 0, but in_features is {shape[1]}"
        return super().refusal(shape)


def has_row_scales(shapes: Shapes) -> bool:
    """Whether a layer stores one scale per row of its weight."""
    scale, weight = shapes.get("weight_scale"), shapes.get("weight")
    if scale is None or not weight:
        return False
    return scale == (weight[0], 1) or 1 < prod(scale) == weight[0]
