"""NVFP4: E2M1 values, an E4M3 scale per block of 16 input channels, an fp32 scale per tensor.

``weight = code * block_scale * weight_scale_2``. The stored layout is comfy-kitchen's
``TensorCoreNVFP4Layout``, which ComfyUI loads: rows and columns padded to 16, block scales in
cuBLAS tiles of 128x4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..errors import FormatError
from .base import (
    FULL_PRECISION,
    EncodedWeight,
    Shapes,
    TensorSpec,
    WeightFormat,
    device_slices,
    relative_error,
    require_finite,
    roundup,
    safe_scale,
    tensor_amax,
)
from .e2m1 import E2M1Workspace, round_to_e2m1, unpack
from .e4m3 import decode_e4m3, read_e4m3_scales
from .nvfp4_scales import (
    BLOCK,
    NVFP4_MAX,
    SEARCH_DIVISOR,
    BlockScales,
    NVFP4Grid,
    max_block_scales,
    searched_block_scales,
)
from .parallel import share_chunks
from .rule import ScaleRule
from .tiles import tile, tiled_shape, untile

#: The suffix of the factors, float32 [in], by which newer ComfyUIs multiply the input of a layer.
PRE_QUANT_SCALE = "pre_quant_scale"


class NVFP4(WeightFormat):
    """4-bit weights; 4-bit activations on GPUs that multiply NVFP4 natively."""

    name = "nvfp4"
    bits = 4.5
    marker: Mapping[str, Any] | None = {"format": "nvfp4"}
    rounds_activations = True
    multiplies_4_bits = True
    activation_divisor: float | None = NVFP4_MAX
    runtime_scale = "dynamic"
    native_from: tuple[int, int] | None = (10, 0)  # Blackwell
    feedback_block = BLOCK
    loads_in_banks = True
    for_experts = "nvfp4_w4a16"
    # On Gaussian weights, the max rule leaves 9%, and GPTQ up to 15%, because it trades weight
    # error for output error. Blocks with one outlier and fifteen small values reach 25%.
    error_bound = 0.35

    def of_marker(self, marker: Mapping[str, Any], shapes: Shapes) -> WeightFormat | None:
        """Return the format of a marker. Factors tell NVFP4 from `NVFP4Smooth`."""
        has_factors = PRE_QUANT_SCALE in shapes
        if has_factors != self.has_channel_scale and not self.is_full_precision:
            return None
        return super().of_marker(marker, shapes)

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Refuse weights that ComfyUI cannot load (not 2-D) or multiply natively (alignment)."""
        if len(shape) != 2:
            return f"NVFP4 is for 2-D weights, but this weight has {len(shape)} dimensions"
        rows, columns = shape
        if columns % 32 or rows % 8:
            return (
                f"the native NVFP4 product needs in_features % 32 == 0 and out_features % 8 == 0, "
                f"but they are {columns} and {rows}"
            )
        return None

    def logical_shape(self, stored: tuple[int, int], rows: int | None) -> tuple[int, int]:
        """Return the shape of the weight. A byte holds two columns.

        Padded columns cannot be recognised, so they count.
        """
        return (rows or stored[0], stored[1] * 2)

    def tensor_specs(
        self, shape: tuple[int, ...], source_dtype: torch.dtype
    ) -> dict[str, TensorSpec]:
        """Return the specs of the packed codes, the tiled block scales and the tensor scale."""
        rows, columns = roundup(shape[0], BLOCK), roundup(shape[1], BLOCK)
        scales = tiled_shape(rows, columns // BLOCK)
        return {
            "weight": TensorSpec((rows, columns // 2), torch.uint8),
            "weight_scale": TensorSpec(scales, torch.float8_e4m3fn),
            "weight_scale_2": TensorSpec((), torch.float32),
        }

    def encode(
        self, weight: torch.Tensor, rule: ScaleRule, *, measure_error: bool = False
    ) -> EncodedWeight:
        """Encode ``weight`` ``[out, in]`` with the scales that ``rule`` chooses."""
        if weight.dim() != 2:
            raise FormatError(self.refusal(tuple(weight.shape)) or "NVFP4 needs a 2-D weight")
        amax = block_amax(weight)
        largest = require_finite(amax)
        divisor = SEARCH_DIVISOR if rule.searches else NVFP4_MAX
        scale = safe_scale(largest, divisor)
        tensor_scale = torch.full((), scale, dtype=torch.float32, device=weight.device)
        if rule.feedback is None:
            block_scales = max_block_scales
            if rule.searches:
                block_scales = searched_block_scales(rule.channel_weights, weight.device)
            packed, scales, error = quantize_blocks(
                weight, amax, tensor_scale, block_scales, measure_error
            )
        else:
            values, codes = rule.feedback.round_blocks(
                weight, NVFP4Grid(tensor_scale), rounded_input=self.rounds_activations
            )
            packed, scales = pack_blocks(values, codes.view(torch.float8_e4m3fn), tensor_scale)
            error = distance(weight, values) if measure_error else None
        return EncodedWeight(
            tensors={
                "weight": packed,
                "weight_scale": tile(scales),
                "weight_scale_2": tensor_scale,
            },
            relative_error=error,
        )

    def decode(
        self, tensors: Mapping[str, torch.Tensor], shape: tuple[int, ...], rows: slice | None = None
    ) -> torch.Tensor:
        """Return float32 values, rounded once by the multiplication."""
        packed = tensors["weight"]
        rows = rows or slice(0, shape[0])
        codes = untile(tensors["weight_scale"], rows, packed.shape[1] * 2 // BLOCK)
        scale = decode_e4m3(codes.view(torch.float8_e4m3fn)).mul_(tensors["weight_scale_2"].float())
        values = unpack(packed[rows])
        values.view(scale.shape[0], -1, BLOCK).mul_(scale.unsqueeze(-1))
        return values[:, : shape[1]]

    def read_scale(self, suffix: str, stored: torch.Tensor) -> torch.Tensor:
        """Return the float32 values of scales. Block scales may be stored as plain bytes."""
        return read_e4m3_scales(stored)

    def emulate_activations(
        self,
        activations: torch.Tensor,
        input_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Round activations to NVFP4 and back, like ComfyUI's runtime.

        Without a static scale, the runtime uses ``amax / 2688`` of the call in the activations' own
        dtype. Block scales always follow the max rule.
        """
        if input_scale is None:
            low, high = torch.aminmax(activations)
            scale = (torch.maximum(high, -low) / NVFP4_MAX).float()
        else:
            device = activations.device
            scale = torch.full((), input_scale, dtype=torch.float32, device=device)
        return round_through_nvfp4(activations, scale, dtype)


class NVFP4W4A16(NVFP4):
    """NVFP4 weights, multiplied in 16 bits. Saves memory but no time."""

    name = "nvfp4_w4a16"
    marker: Mapping[str, Any] | None = {"format": "nvfp4", FULL_PRECISION: True}
    rounds_activations = False
    multiplies_4_bits = False
    activation_divisor = None
    native_from = None
    runtime_scale = ""
    for_experts = ""

    def emulate_activations(
        self,
        activations: torch.Tensor,
        input_scale: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """Return the activations unchanged, because they stay in 16 bits."""
        return activations.to(dtype)


def block_amax(weight: torch.Tensor) -> torch.Tensor:
    """Return the absolute maximum of every block, float32 ``[rows, ceil(columns / 16)]``.

    NaN stays NaN. The maximum is taken over the bits read as integers, which have the same order.
    This is several times faster than ``abs().amax()`` over short rows.
    """
    rows, columns = weight.shape
    padded = roundup(columns, BLOCK)
    result = torch.empty(rows, padded // BLOCK, dtype=torch.float32, device=weight.device)
    slices = device_slices(weight, padded)

    def loop(chunks: Iterable[slice]) -> None:
        buffer = torch.zeros(_capacity(slices), padded, dtype=torch.float32, device=weight.device)
        for chunk in chunks:
            values = buffer[: chunk.stop - chunk.start]
            values[:, :columns].copy_(weight[chunk])
            bits = values.view(torch.int32).bitwise_and_(0x7FFFFFFF)
            result[chunk] = bits.view(-1, BLOCK).amax(-1).view(torch.float32).view(len(values), -1)

    share_chunks(loop, slices, weight.device)
    return result


def quantize_blocks(
    weight: torch.Tensor,
    amax: torch.Tensor,
    tensor_scale: torch.Tensor,
    block_scales: BlockScales,
    measure_error: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, float | None]:
    """Round a weight to NVFP4 in chunks of rows.

    Args:
        weight: ``[rows, columns]``, any float dtype.
        amax: `block_amax` of the weight.
        tensor_scale: 0-d float32.
        block_scales: chooses the scale of each block (see `BlockScales`).
        measure_error: whether to measure the relative error (Frobenius norm).

    Returns:
        Packed uint8 codes ``[rows16, columns16 / 2]`` and untiled float8_e4m3fn block scales
        ``[rows16, columns16 / 16]``, both padded to multiples of 16, and the error or None. With
        the max rule, they are bit-identical to comfy-kitchen's ``quantize_nvfp4``.
    """
    rows, columns = weight.shape
    padded = roundup(columns, BLOCK)
    device = weight.device
    packed = torch.zeros(roundup(rows, BLOCK), padded // 2, dtype=torch.uint8, device=device)
    scales = torch.zeros(packed.shape[0], padded // BLOCK, dtype=torch.uint8, device=device)
    slices = device_slices(weight, padded)
    squares: dict[int, torch.Tensor] = {}

    def loop(chunks: Iterable[slice]) -> None:
        workspace = E2M1Workspace(_capacity(slices) * padded, device, keep_residual=measure_error)
        for chunk in chunks:
            source = _pad_columns(weight[chunk], padded)
            scale = block_scales(source.view(-1, BLOCK), amax[chunk].reshape(-1), tensor_scale)
            scales[chunk] = scale.view(torch.uint8).view(source.shape[0], -1)
            total = decode_e4m3(scale).mul_(tensor_scale)
            count = source.numel()
            values = workspace.values[:count].view(-1, BLOCK)
            values.copy_(source.view(-1, BLOCK))
            _divide_by_scale(values, total)
            squared_norm = _sum_of_squares(values, total) if measure_error else None
            codes, residual = workspace.encode(count)
            packed[chunk].view(-1).copy_(codes)
            if residual is not None and squared_norm is not None:
                both = torch.stack([_sum_of_squares(residual, total), squared_norm])
                squares[chunk.start] = both + _squares_of_lost(source, total, tensor_scale)

    share_chunks(loop, slices, device)
    error = relative_error(squares) if measure_error else None
    return packed, scales.view(torch.float8_e4m3fn), error


def pack_blocks(
    values: torch.Tensor, scales: torch.Tensor, tensor_scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pack values that are already on the grid of their scales.

    Args:
        values: float32 ``[rows, columns]``, columns a multiple of 16.
        scales: float8_e4m3fn ``[rows, columns / 16]``.
        tensor_scale: 0-d float32.

    Returns:
        Codes and untiled block scales as from `quantize_blocks`.
    """
    # Pass the scales in place of the block maxima, so that each chunk gets its own scales back.
    packed, stored, _ = quantize_blocks(
        values, scales.float(), tensor_scale, lambda blocks, own, _: own.to(torch.float8_e4m3fn)
    )
    return packed, stored


def distance(weight: torch.Tensor, values: torch.Tensor) -> float:
    """Return ``||weight - values|| / ||weight||``; 0 for an all-zero weight."""
    unit = float(tensor_amax(weight)) or 1.0  # squares of extreme values would overflow float32
    squares: dict[int, torch.Tensor] = {}

    def loop(chunks: Iterable[slice]) -> None:
        for chunk in chunks:
            wanted = weight[chunk].float() / unit
            error = (values[chunk] / unit).sub_(wanted).square_().sum()
            squares[chunk.start] = torch.stack([error, wanted.square_().sum()]).double()

    share_chunks(loop, device_slices(weight), weight.device)
    return relative_error(squares)


def round_through_nvfp4(
    activations: torch.Tensor, tensor_scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Round values to NVFP4 and back with the max rule.

    Gives the same values as `quantize_blocks` with `max_block_scales` and decoding, but makes no
    codes and does not wait for the device.

    Args:
        activations: ``[rows, columns]``, any float dtype.
        tensor_scale: 0-d float32; zero gives zeros.
        dtype: dtype of the result.
    """
    rows, columns = activations.shape
    padded = roundup(columns, BLOCK)
    device = activations.device
    result = torch.empty(rows, columns, dtype=dtype, device=device)
    divisor = tensor_scale.masked_fill(tensor_scale == 0, 1.0)
    slices = device_slices(activations, padded)

    def loop(chunks: Iterable[slice]) -> None:
        capacity = (_capacity(slices), padded)
        buffer = torch.empty(capacity, dtype=torch.float32, device=device)
        scratch = torch.empty(capacity, dtype=torch.float32, device=device)
        for chunk in chunks:
            values, spare = (t[: chunk.stop - chunk.start] for t in (buffer, scratch))
            values[:, :columns] = activations[chunk]
            values[:, columns:] = 0
            blocks, magnitudes = values.view(-1, BLOCK), spare.view(torch.int32).view(-1, BLOCK)
            torch.bitwise_and(blocks.view(torch.int32), 0x7FFFFFFF, out=magnitudes)
            amax = magnitudes.amax(-1).view(torch.float32)
            total = decode_e4m3(max_block_scales(blocks, amax, divisor)).mul_(tensor_scale)
            blocks.div_(total.masked_fill(total == 0, torch.inf).unsqueeze(-1))
            round_to_e2m1(values, spare)
            blocks.mul_(total.unsqueeze(-1))
            result[chunk] = values[:, :columns]

    share_chunks(loop, slices, device)
    return result


def _divide_by_scale(values: torch.Tensor, total: torch.Tensor) -> None:
    """Divide blocks ``[B, 16]`` by their scales ``[B]`` in place; a zero scale gives zeros."""
    zero = total == 0
    if _is_gpu(values) or bool(zero.any()):
        values.masked_fill_(zero.unsqueeze(-1), 0.0)
        total = total.masked_fill(zero, 1.0)
    values.div_(total.unsqueeze(-1))


def _sum_of_squares(scaled: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Return the float64 sum of squares of a chunk's values or errors.

    ``scaled`` holds them in units of the scales ``total``, so that nothing overflows float32.
    """
    per_block = scaled.view(-1, BLOCK).square() @ scaled.new_ones(BLOCK)
    return (per_block.double() * total.double().square()).sum()


def _squares_of_lost(
    source: torch.Tensor, total: torch.Tensor, tensor_scale: torch.Tensor
) -> torch.Tensor | float:
    """Return the float64 sum of squares of the blocks that are too small for any scale.

    They are stored as zeros, so their values and their errors are both the source.
    """
    lost = total == 0
    if _is_gpu(source):
        units = source.view(-1, BLOCK).float() / tensor_scale  # where the squares do not vanish
        per_block = units.square_() @ units.new_ones(BLOCK)
        per_block = per_block.masked_fill_(~lost, 0.0).double()
        return (per_block * tensor_scale.double().square()).sum()
    if not bool(lost.any()):
        return 0.0
    return source.view(-1, BLOCK)[lost].double().square().sum()


def _is_gpu(values: torch.Tensor) -> bool:
    """Whether a question about the values would make the host wait for the device."""
    return values.device.type != "cpu"


def _pad_columns(chunk: torch.Tensor, padded: int) -> torch.Tensor:
    if chunk.shape[1] == padded:
        return chunk.contiguous()
    return torch.nn.functional.pad(chunk, (0, padded - chunk.shape[1]))


def _capacity(slices: list[slice]) -> int:
    return max((s.stop - s.start for s in slices), default=0)
