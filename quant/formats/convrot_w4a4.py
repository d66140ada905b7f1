"""ConvRot W4A4: 4-bit integers in a rotated basis, with one scale per row.

It is the 4-bit format for GPUs before Blackwell. A byte holds two codes, with the even column in
the low nibble.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from .integer_scales import row_scales_by
from .integers import (
    INT4_FLOOR,
    INT4_MAX,
    decode_rows,
    round_inputs_to_int4,
    round_inputs_to_int8,
    round_rows,
)
from .rotation import DEFAULT_GROUP, marked_group_size, rotate
from .rule import ScaleRule

MARKER_NAME = "convrot_w4a4"
# comfy-kitchen's kernels process 64 channels at a time.
_KERNEL_COLUMNS = 64
_NO_INT4_FROM = (9, 0)  # Hopper


class ConvRotW4A4(WeightFormat):
    """4-bit weights with 4-bit activations, or 8-bit activations if ``linear_dtype`` is int8."""

    bits = 4.0
    marker: Mapping[str, Any] | None
    rounds_activations = True
    runtime_scale = "per token"
    native_from = (7, 5)  # Turing
    multiplies_integers = True
    loads_in_banks = True
    feedback_block = 1
    for_experts = "nvfp4_w4a16"
    # The max rule leaves 15% on usual weights, and up to 30% with single outliers.
    error_bound = 0.35

    def __init__(self, name: str, *, linear_dtype: str = "int4", group: int = DEFAULT_GROUP):
        self.name = name
        self._group = group
        self._linear_dtype = linear_dtype
        self._int8_inputs = linear_dtype == "int8"
        self.multiplies_4_bits = not self._int8_inputs
        self.marker = {"format": MARKER_NAME, "convrot_groupsize": group}
        if self._int8_inputs:
            self.marker["linear_dtype"] = "int8"

    def of_marker(self, marker: Mapping[str, Any], shapes: Shapes) -> WeightFormat | None:
        """Return the format of a marker, with the group size of the marker."""
        size = marked_group_size(marker)
        inputs = marker_parameter(marker, "linear_dtype", "int4")
        if marker.get("format") != MARKER_NAME or size is None or inputs != self._linear_dtype:
            return None
        return (
            self if size == self._group else ConvRotW4A4(self.name, linear_dtype=inputs, group=size)
        )

    def is_named_by(self, marker: Mapping[str, Any]) -> bool:
        """Return False, because the name alone does not tell how inputs are rounded."""
        return False

    def native_note(self, capability: tuple[int, int]) -> str:
        """Return a note for Hopper and newer GPUs, which do not multiply 4-bit integers."""
        if self._int8_inputs or capability < _NO_INT4_FROM:
            return ""
        return "runs as convrot_w4a8: this GPU does not multiply 4-bit integers"

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Refuse shapes that comfy-kitchen cannot rotate or multiply."""
        if len(shape) != 2:
            return f"{MARKER_NAME} is for 2-D weights, but this weight has {len(shape)} dimensions"
        size = max(self._group, _KERNEL_COLUMNS)
        if shape[1] % size:
            return f"rotation needs in_features % {size} == 0, but in_features is {shape[1]}"
        return None

    def logical_shape(self, stored: tuple[int, int], rows: int | None) -> tuple[int, int]:
        """Return the shape of the weight. A byte holds two columns, and there is no padding."""
        return (stored[0], stored[1] * 2)

    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the specs of the packed codes and of the scales."""
        return {
            "weight": TensorSpec((shape[0], shape[1] // 2), torch.int8),
            "weight_scale": TensorSpec((shape[0],), torch.float32),
        }

    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Encode in float32; for a float32 weight, bit for bit as comfy-kitchen.

        comfy-kitchen rotates and divides a bf16 or fp16 weight in its own dtype.
        """
        refusal = self.refusal(tuple(weight.shape))
        if refusal:
            raise FormatError(refusal)
        require_finite(tensor_amax(weight))
        result = round_rows(
            rotate(weight.float(), self._group),
            row_scales_by(rule, INT4_MAX, self._group, weight.device),
            (-INT4_MAX, INT4_MAX),
            INT4_FLOOR,
            feedback=rule.feedback,
            group=self._group,
            measure_error=measure_error,
        )
        return EncodedWeight(
            {"weight": pack_nibbles(result.codes), "weight_scale": result.scales},
            result.relative_error,
        )

    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Return float32 values."""
        rows = rows or slice(0, shape[0])
        codes = unpack_nibbles(tensors["weight"][rows])
        return decode_rows(codes, tensors["weight_scale"].reshape(-1)[rows], self._group)

    def emulate_activations(
        self,
        activations: torch.Tensor,
        input_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Round each rotated token as on Turing, Ampere and Ada.

        Hopper and Blackwell have no int4 product, so comfy-kitchen rounds to int8 there.
        """
        if self._int8_inputs:
            return round_inputs_to_int8(activations, self._group, dtype)
        return round_inputs_to_int4(activations, self._group, dtype)


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Pack codes from -8 to 7, int8 ``[rows, columns]``, into int8 ``[rows, columns / 2]``."""
    return (codes[:, 0::2] & 0x0F).bitwise_or_(codes[:, 1::2] << 4)


def unpack_nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Unpack int8 ``[rows, columns]`` to codes int8 ``[rows, 2 * columns]``."""
    low = (packed << 4) >> 4  # an arithmetic shift extends the sign
    return torch.stack([low, packed >> 4], dim=-1).reshape(len(packed), -1)
