"""MXFP8: E4M3 values, and a power of two per block of 32 input channels.

Source: OCP Microscaling Formats, v1.0. ``weight = code * 2^(block_scale - 127)``. The stored layout
is comfy-kitchen's ``TensorCoreMXFP8Layout``: rows and columns padded to 32, block scales (E8M0) in
cuBLAS tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..errors import FormatError
from .base import (
    EncodedWeight,
    TensorSpec,
    WeightFormat,
    device_slices,
    relative_error,
    require_finite,
    roundup,
    tensor_amax,
)
from .e4m3 import E4M3_MAX, decode_e4m3
from .parallel import share_chunks
from .rule import RoundInto, ScaleRule
from .tiles import tile, tiled_shape, untile

BLOCK = 32
_BIAS = 127
_LARGEST_CODE = 254  # 255 is NaN


class MXFP8(WeightFormat):
    """8-bit float weights and activations with a scale per block; native on Blackwell."""

    name = "mxfp8"
    bits = 8.25
    marker: Mapping[str, Any] | None = {"format": "mxfp8"}
    rounds_activations = True
    runtime_scale = "per block"
    native_from = (10, 0)  # Blackwell
    native_torch = (2, 10)
    loads_in_banks = True
    feedback_block = BLOCK
    error_bound = 0.07
    # No other power of two leaves less error in a block. Smaller ones clip, and larger ones only
    # move values towards the subnormals of E4M3.
    has_scale_choice = False

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Refuse weights that are not 2-D. With padding, every width multiplies natively."""
        if len(shape) != 2:
            return f"MXFP8 is for 2-D weights, but this weight has {len(shape)} dimensions"
        return None

    def logical_shape(self, stored: tuple[int, int], rows: int | None) -> tuple[int, int]:
        """Return the shape of the weight. Padded columns cannot be recognised, so they count."""
        return (rows or stored[0], stored[1])

    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the specs of the codes and of the tiled block scales.

        Scales are stored as plain bytes. ComfyUI views them as E8M0, but its reader of safetensors
        files does not support this dtype.
        """
        rows, columns = roundup(shape[0], BLOCK), roundup(shape[1], BLOCK)
        return {
            "weight": TensorSpec((rows, columns), torch.float8_e4m3fn),
            "weight_scale": TensorSpec(tiled_shape(rows, columns // BLOCK), torch.uint8),
        }

    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Encode in chunks of rows, for any float dtype bit for bit as comfy-kitchen.

        Blocks below 2^-118 differ. comfy-kitchen gives them a scale of zero and codes of NaN, but
        here they are stored as zeros.
        """
        if weight.dim() != 2:
            raise FormatError(self.refusal(tuple(weight.shape)) or "MXFP8 needs a 2-D weight")
        require_finite(tensor_amax(weight))
        specs = self.tensor_specs(tuple(weight.shape), weight.dtype)
        rows, columns = specs["weight"].shape
        device = weight.device
        codes = torch.zeros(rows, columns, dtype=torch.float8_e4m3fn, device=device)
        scales = torch.zeros(rows, columns // BLOCK, dtype=torch.uint8, device=device)
        squares: dict[int, torch.Tensor] = {}
        found = None
        if rule.feedback is not None:
            found = rule.feedback.round_blocks(weight, MXFP8Grid(), rounded_input=False)

        def loop(chunks: Iterable[slice]) -> None:
            for chunk in chunks:
                if found is None:
                    scaled, code = scale_blocks(weight[chunk])
                    wanted = scaled
                else:  # without padding
                    code = found[1][chunk].reshape(-1)
                    divisor = _divisors(powers_of_two(code)).unsqueeze(1)
                    wanted = found[0][chunk].view(-1, BLOCK) / divisor
                    scaled = weight[chunk].float().view(-1, BLOCK) / divisor
                rounded = wanted.to(torch.float8_e4m3fn)
                codes[chunk] = rounded.view(-1, columns)
                scales[chunk] = code.view(-1, columns // BLOCK)
                if measure_error:
                    error = decode_e4m3(rounded).sub_(scaled).square_().sum(1)
                    both = torch.stack([error, scaled.square().sum(1)]).double()
                    squares[chunk.start] = both @ powers_of_two(code).double().square()

        share_chunks(loop, device_slices(weight, columns), device)
        return EncodedWeight(
            {"weight": codes, "weight_scale": tile(scales)},
            relative_error(squares) if measure_error else None,
        )

    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Return float32 values, exactly."""
        rows = rows or slice(0, shape[0])
        codes = tensors["weight"][rows]
        scale = powers_of_two(untile(tensors["weight_scale"], rows, codes.shape[1] // BLOCK))
        values = decode_e4m3(codes)
        values.view(*scale.shape, BLOCK).mul_(scale.unsqueeze(-1))
        return values[:, : shape[1]]

    def read_scale(self, suffix: str, stored: torch.Tensor) -> torch.Tensor:
        """Return the powers of two of block scales, stored as bytes or E8M0; inf for NaN."""
        is_blocks = suffix == "weight_scale"
        return powers_of_two(stored.view(torch.uint8)) if is_blocks else stored.float()

    def emulate_activations(
        self,
        activations: torch.Tensor,
        input_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Round activations in the same way as weights. ComfyUI ignores an input_scale here."""
        rows, columns = activations.shape
        result = torch.empty(rows, columns, dtype=dtype, device=activations.device)

        def loop(chunks: Iterable[slice]) -> None:
            for chunk in chunks:
                scaled, code = scale_blocks(activations[chunk])
                values = decode_e4m3(scaled.to(torch.float8_e4m3fn))
                values.mul_(powers_of_two(code).unsqueeze(1))
                result[chunk] = values.view(chunk.stop - chunk.start, -1)[:, :columns]

        share_chunks(loop, device_slices(activations), activations.device)
        return result


def scale_blocks(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Divide blocks by the smallest power of two that makes them fit into E4M3.

    Args:
        rows: ``[R, in]``, any float dtype; columns are padded with zeros.

    Returns:
        Divided blocks float32 ``[B, 32]`` within the range of E4M3, and the codes of the powers of
        two, uint8 ``[B]``, 0 for a block of zeros. The order of operations is that of
        comfy-kitchen's ``quantize_mxfp8``.
    """
    padding = -rows.shape[1] % BLOCK
    blocks = torch.nn.functional.pad(rows, (0, padding)).float().view(-1, BLOCK)
    low, high = torch.aminmax(blocks, dim=1)
    code = _smallest_scales(torch.maximum(high, -low))
    scaled = (blocks / powers_of_two(code).unsqueeze(1)).clamp_(-E4M3_MAX, E4M3_MAX)
    return scaled.masked_fill_((code == 0).unsqueeze(1), 0.0), code


def _smallest_scales(block_amax: torch.Tensor) -> torch.Tensor:
    """Return the code of the smallest power of two that makes each block fit, uint8 ``[B]``."""
    # A tensor, because torch on a GPU divides by a Python number by multiplying with its
    # reciprocal, which rounds differently.
    largest = block_amax.new_full((), E4M3_MAX)
    needed = (block_amax / largest).clamp_(min=2.0**-_BIAS)
    code = needed.log2().ceil_().to(torch.int32).add_(_BIAS).clamp_(0, _LARGEST_CODE)
    return code.to(torch.uint8)


def _divisors(scales: torch.Tensor) -> torch.Tensor:
    """Return what to divide values by, so that those of blocks without a scale become zero."""
    return scales.masked_fill(scales == 0, torch.inf)


class MXFP8Grid:
    """The `BlockGrid` of MXFP8. The smallest scale that fits a block is the only candidate."""

    block = BLOCK
    group = 1

    def candidates(self, block_amax: torch.Tensor) -> torch.Tensor:
        """Return the code of the smallest power of two that makes each block fit."""
        return _smallest_scales(block_amax).unsqueeze(1)

    def rounding(self, codes: torch.Tensor) -> RoundInto:
        """Return what rounds values to E4M3 times these block scales."""
        scale = powers_of_two(codes)
        divisor = _divisors(scale)

        def round_into(values: torch.Tensor, out: torch.Tensor) -> None:
            torch.div(values, divisor, out=out)
            out.clamp_(-E4M3_MAX, E4M3_MAX)
            out.copy_(out.to(torch.float8_e4m3fn)).mul_(scale)

        return round_into


def powers_of_two(code: torch.Tensor) -> torch.Tensor:
    """Return the float32 values of E8M0 codes; 0 for code 0, as in comfy-kitchen."""
    return code.to(torch.int32).bitwise_left_shift_(23).view(torch.float32)
