"""W4A8: rotated 4-bit codes of a codebook, a scale per 16 channels, multiplied as 8-bit integers.

It is as large as NVFP4 and more precise, because activations keep 8 bits. ComfyUI 0.33 calls it
``asym_w4a8_int8``. A code stands for the integer ``round(codebook[code] * weight_s_rel)`` between
-127 and 127. The weight is this integer times ``weight_s_channel``, rotated back (see
``rotation``). A byte holds two codes, with the even column in the low nibble.
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
from .codebook import LEVELS
from .codebook_rows import quantize_rotated, quantize_with_feedback, unpack_codes
from .e4m3 import read_e4m3_scales
from .integers import round_inputs_to_int8
from .rotation import DEFAULT_GROUP, marked_group_size, rotate
from .rule import ScaleRule

MARKER_NAME = "asym_w4a8_int8"
#: Channels per scale.
BLOCK = 16
CODEBOOK, CORRECTION = "weight_codebook", "weight_correction"


class AsymW4A8Int8(WeightFormat):
    """4-bit weights with 8-bit activations, for integer tensor cores from Ampere on.

    Args:
        block: channels per scale.
        group: channels that are rotated together.
        has_codebook: whether codes name levels of a table; if not, they are the integers -8 to 7.
        is_asymmetric: whether each block also stores a constant to add. Such files are only read.
    """

    name = MARKER_NAME
    bits = 4.5
    marker: Mapping[str, Any] | None
    needs_comfyui = (0, 33)
    signed = frozenset({CODEBOOK, CORRECTION})
    rounds_activations = True
    runtime_scale = "per token"
    native_from = (8, 0)  # Ampere
    multiplies_integers = True
    feedback_block = BLOCK
    for_experts = "nvfp4_w4a16"  # without tokens comfy-kitchen's general code fails
    # 7% is left on Gaussian weights, and 20% where a rotated block has a single value, because no
    # level is zero.
    error_bound = 0.35

    def __init__(
        self,
        *,
        block: int = BLOCK,
        group: int = DEFAULT_GROUP,
        has_codebook: bool = True,
        is_asymmetric: bool = False,
    ):
        self._block, self._group = block, group
        self._has_codebook, self._is_asymmetric = has_codebook, is_asymmetric
        self.marker = {"format": MARKER_NAME, "group_size": block, "convrot_groupsize": group}

    def of_marker(self, marker: Mapping[str, Any], shapes: Shapes) -> WeightFormat | None:
        """Return the format of a marker, with its group sizes and the tensors that are there."""
        if not self.is_named_by(marker):
            return None
        block, group = _marked_block(marker), marked_group_size(marker)
        if block is None or group is None:
            return None
        has_codebook = CODEBOOK in shapes or not shapes
        found = AsymW4A8Int8(
            block=block,
            group=group,
            has_codebook=has_codebook,
            is_asymmetric=CORRECTION in shapes,
        )
        return self if found.parameters() == self.parameters() else found

    def parameters(self) -> tuple[int, int, bool, bool]:
        """Return what distinguishes files of this format."""
        return self._block, self._group, self._has_codebook, self._is_asymmetric

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Refuse shapes that comfy-kitchen cannot rotate."""
        if len(shape) != 2:
            return f"{MARKER_NAME} is for 2-D weights, but this weight has {len(shape)} dimensions"
        size = max(self._group, self._block, BLOCK)
        if shape[1] % size:
            return f"rotation needs in_features % {size} == 0, but in_features is {shape[1]}"
        return None

    def logical_shape(self, stored: tuple[int, int], rows: int | None) -> tuple[int, int]:
        """Return the shape of the weight. A byte holds two columns, and there is no padding."""
        return (stored[0], stored[1] * 2)

    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the specs of the packed codes, both scales and the codebook."""
        rows, columns = shape
        blocks = columns // self._block
        specs = {
            "weight": TensorSpec((rows, columns // 2), torch.int8),
            "weight_s_rel": TensorSpec((rows, blocks), torch.float8_e4m3fn),
            "weight_s_channel": TensorSpec((rows,), torch.float32),
        }
        if self._has_codebook:
            specs[CODEBOOK] = TensorSpec((LEVELS,), torch.float32)
        if self._is_asymmetric:
            specs[CORRECTION] = TensorSpec((blocks, rows), torch.float32)
        return specs

    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Encode in float32; with the max rule and a float32 weight, bit for bit as comfy-kitchen.

        comfy-kitchen rotates a bf16 or fp16 weight in its own dtype. Weights that are too small or
        too large for its scales keep their precision here.
        """
        refusal = self.refusal(tuple(weight.shape))
        if refusal or self.parameters() != FORMAT.parameters():
            raise FormatError(refusal or f"{MARKER_NAME} is written only as comfy-kitchen does")
        amax = require_finite(tensor_amax(weight))
        if rule.feedback is None:
            found = quantize_rotated(
                weight, amax, self._group, search=rule.searches, measure_error=measure_error
            )
        else:
            found = quantize_with_feedback(
                weight, amax, self._group, rule.feedback, measure_error=measure_error
            )
        tensors = {
            "weight": found.packed,
            "weight_s_rel": found.block_scales,
            "weight_s_channel": found.row_scales,
            CODEBOOK: found.codebook,
        }
        return EncodedWeight(tensors, found.relative_error)

    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Return float32 values. They are rotated back before they are scaled, as in int8_convrot.

        In float32, sums of so few small integers are exact. comfy-kitchen scales first, so its last
        bits differ.
        """
        rows = rows or slice(0, shape[0])
        scales = tensors["weight_s_rel"][rows]
        integers = unpack_codes(tensors["weight"][rows], scales, tensors.get(CODEBOOK))
        row_scales = tensors["weight_s_channel"].float().reshape(-1)[rows].unsqueeze(1)
        values = rotate(integers, self._group).mul_(row_scales)
        correction = tensors.get(CORRECTION)
        if correction is None:
            return values
        added = correction.float().t()[rows].repeat_interleave(self._block, 1)
        return values.add_(rotate(added, self._group))

    def read_scale(self, suffix: str, stored: torch.Tensor) -> torch.Tensor:
        """Return the float32 values of scales. Those of blocks may be stored as plain bytes."""
        return read_e4m3_scales(stored)

    def emulate_activations(
        self,
        activations: torch.Tensor,
        input_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Round each rotated token to int8. An asymmetric layer is multiplied in 16 bits."""
        if self._is_asymmetric:
            return activations.to(dtype)
        return round_inputs_to_int8(activations, self._group, dtype)


def _marked_block(marker: Mapping[str, Any]) -> int | None:
    """Return the group size of a marker, or None if comfy-kitchen does not have it."""
    try:
        size = int(marker_parameter(marker, "group_size", BLOCK))
    except (TypeError, ValueError):
        return None
    return size if size >= 4 and (BLOCK % size == 0 or size % BLOCK == 0) else None


FORMAT = AsymW4A8Int8()
