"""8-bit floats with one fp32 scale per tensor: ``weight = code * weight_scale``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..errors import FormatError
from .base import (
    FULL_PRECISION,
    EncodedWeight,
    TensorSpec,
    WeightFormat,
    device_slices,
    relative_error,
    require_finite,
    safe_scale,
    tensor_amax,
)
from .e4m3 import E4M3_MAX, decode_e4m3
from .e5m2 import E5M2_MAX, decode_e5m2
from .fixed_grid import rounded_parts
from .float8_scales import searched_e4m3_scale
from .parallel import share_chunks
from .rule import ScaleRule


class Float8(WeightFormat):
    """Common base of the 8-bit float formats."""

    bits = 8.0
    kinds = ("linear", "embedding")
    loads_in_banks = True
    feedback_block = 1
    dtype: torch.dtype
    #: The largest finite value of ``dtype``.
    largest: float

    @staticmethod
    @abstractmethod
    def read(codes: torch.Tensor) -> torch.Tensor:
        """Return the float32 values of stored codes."""

    def choose_scale(self, weight: torch.Tensor, amax: float, rule: ScaleRule) -> float:
        """Return the scale of a weight with this absolute maximum."""
        if rule.searches and self.dtype == torch.float8_e4m3fn:
            return searched_e4m3_scale(weight, amax, rule.channel_weights)
        return safe_scale(amax, self.largest)  # a search does not help E5M2

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Refuse weights that are not 2-D."""
        if len(shape) != 2:
            return f"float8 is for 2-D weights, but this weight has {len(shape)} dimensions"
        return None

    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the specs of the codes and of the 0-d scale."""
        return {
            "weight": TensorSpec(tuple(shape), self.dtype),
            "weight_scale": TensorSpec((), torch.float32),
        }

    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Encode in chunks of rows. Round half to even, saturating.

        Computes in float32 for every source dtype. For bf16, comfy-kitchen multiplies in bf16 and
        so rounds twice.
        """
        if weight.dim() != 2:
            raise FormatError(self.refusal(tuple(weight.shape)) or "float8 needs a 2-D weight")
        amax = require_finite(tensor_amax(weight))
        chosen = self.choose_scale(weight, amax, rule)
        scale = torch.full((), chosen, dtype=torch.float32, device=weight.device)
        reciprocal = 1.0 / scale
        codes = torch.empty(weight.shape, dtype=self.dtype, device=weight.device)
        squares: dict[int, torch.Tensor] = {}
        if rule.feedback is not None:
            parts = rounded_parts(
                rule.feedback,
                self._round_into,
                lambda part: weight[part].float() * reciprocal,
                (weight.shape[0], weight.shape[1]),
            )
            for part, _, rounded in parts:
                codes[part] = rounded.to(codes.dtype)

        def loop(chunks: Iterable[slice]) -> None:
            for chunk in chunks:
                values = weight[chunk].float() * reciprocal
                if rule.feedback is None:
                    codes[chunk] = values.clamp(-self.largest, self.largest).to(codes.dtype)
                if measure_error:  # in units of the scale, where nothing overflows
                    difference = self.read(codes[chunk]).sub_(values)
                    squared = [difference.square_().sum(), values.square().sum()]
                    squares[chunk.start] = torch.stack(squared).double()

        share_chunks(loop, device_slices(weight), weight.device)
        error = relative_error(squares) if measure_error else None
        return EncodedWeight({"weight": codes, "weight_scale": scale}, error)

    def _round_into(self, values: torch.Tensor, out: torch.Tensor) -> None:
        torch.clamp(values, -self.largest, self.largest, out=out)
        out.copy_(out.to(self.dtype))

    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Return float32 values."""
        codes = tensors["weight"]
        codes = codes if rows is None else codes[rows]
        return self.read(codes).mul_(tensors["weight_scale"].float())


class Float8E4M3(Float8):
    """8-bit float weights and activations; native on Ada, Hopper and Blackwell."""

    name = "float8_e4m3fn"
    dtype = torch.float8_e4m3fn
    largest = E4M3_MAX
    marker: Mapping[str, Any] | None = {"format": "float8_e4m3fn"}
    rounds_activations = True
    # Without an input_scale, ComfyUI uses 1.0 and clips activations at 448.
    activation_divisor = E4M3_MAX
    runtime_scale = "1.0"
    native_from = (8, 9)  # Ada
    needs_kernels = False  # torch multiplies float8 itself
    # Three mantissa bits round by at most 1/16; small values fall into subnormals.
    error_bound = 0.07
    read = staticmethod(decode_e4m3)

    def emulate_activations(
        self,
        activations: torch.Tensor,
        input_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Round activations to float8 and back. Without a stored scale, ComfyUI uses 1.0.

        Divides in float32 like comfy-kitchen's CUDA kernel (``per_tensor_quantize.cu``). Its CPU
        code multiplies by the reciprocal in the dtype of the activations instead.
        """
        device = activations.device
        value = 1.0 if input_scale is None else input_scale
        # The scale is a tensor because torch on a GPU divides by a Python number by multiplying
        # with its reciprocal.
        scale = torch.full((), value, dtype=torch.float32, device=device)
        result = torch.empty(activations.shape, dtype=dtype, device=device)

        def loop(chunks: Iterable[slice]) -> None:
            for chunk in chunks:
                values = (activations[chunk].float() / scale).clamp_(-E4M3_MAX, E4M3_MAX)
                result[chunk] = decode_e4m3(values.to(torch.float8_e4m3fn)).mul_(scale)

        share_chunks(loop, device_slices(activations), device)
        return result


class Float8E4M3W8A16(Float8):
    """8-bit float weights, multiplied in 16 bits. Saves memory but no time.

    Older files ask for this product with a ``scaled_fp8`` tensor of two elements.
    """

    name = "float8_e4m3fn_w8a16"
    dtype = torch.float8_e4m3fn
    largest = E4M3_MAX
    marker: Mapping[str, Any] | None = {
        "format": "float8_e4m3fn",
        FULL_PRECISION: True,
    }
    error_bound = Float8E4M3.error_bound
    read = staticmethod(decode_e4m3)


class Float8E5M2(Float8):
    """8-bit float weights with two mantissa bits, multiplied in 16 bits. Saves memory but no time.

    The marker asks for a product in 16 bits because no GPU multiplies two E5M2 matrices. Without
    it, ComfyUI rounds activations to E5M2, and torch refuses the product with a ``ValueError``.
    """

    name = "float8_e5m2"
    dtype = torch.float8_e5m2
    largest = E5M2_MAX
    marker: Mapping[str, Any] | None = {
        "format": "float8_e5m2",
        FULL_PRECISION: True,
    }
    # Two mantissa bits round by at most 1/8.
    error_bound = 0.13
    # A search reduces the squared error of Gaussian and Student-t weights by only 0.4%.
    has_scale_choice = False
    read = staticmethod(decode_e5m2)
