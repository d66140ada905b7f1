"""Round to integers with one scale per row: common code of the int8 and int4 formats.

The operations and their order are those of comfy-kitchen in float32, so codes and scales agree bit
for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from .base import device_slices, relative_error
from .parallel import share_chunks
from .rotation import rotate, rotate_inputs

INT8_MAX, INT4_MAX = 127.0, 7.0
# Lower limits in comfy-kitchen: of the int8 scale, and of the amax from which the int4 scale
# follows by a division by 7.
INT8_FLOOR, _INT4_SMALLEST = 1e-30, 1e-10
INT4_FLOOR = float(torch.tensor(_INT4_SMALLEST) / INT4_MAX)

# With a larger scale, the lowest code of int8 would overflow float32 when it is decoded.
LARGEST_SCALE = torch.finfo(torch.float32).max / 128

#: Takes rows float32 ``[R, in]`` and their absolute maxima ``[R]``, returns scales ``[R]``.
RowScales = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class IntegerRows:
    """Codes int8 ``[out, in]``, scales float32 ``[out]``, and the relative error if measured."""

    codes: torch.Tensor
    scales: torch.Tensor
    relative_error: float | None


def round_rows(
    values: torch.Tensor,
    row_scales: RowScales,
    limits: tuple[float, float],
    floor: float,
    *,
    measure_error: bool = False,
) -> IntegerRows:
    """Round every row of a weight to integer multiples of its scale, half to even.

    Works in chunks of rows.

    Args:
        values: ``[out, in]``, any float dtype, finite.
        row_scales: chooses the scale of each row.
        limits: the smallest and the largest code.
        floor: the smallest scale.
        measure_error: whether to measure the relative error (Frobenius norm).
    """
    rows, columns = values.shape
    codes = torch.empty(rows, columns, dtype=torch.int8, device=values.device)
    scales = torch.empty(rows, dtype=torch.float32, device=values.device)
    squares: dict[int, torch.Tensor] = {}

    def loop(chunks: Iterable[slice]) -> None:
        for chunk in chunks:
            wanted = values[chunk].float()
            scale = row_scales(wanted, row_amax(wanted)).clamp(floor, LARGEST_SCALE)
            scaled = wanted / scale.unsqueeze(1)
            rounded = scaled.round().clamp_(*limits)
            scales[chunk] = scale
            codes[chunk] = rounded.to(torch.int8)
            if measure_error:  # in units of the scale, where nothing overflows
                errors = rounded.sub_(scaled).square_().sum(1)
                per_row = torch.stack([errors, scaled.square_().sum(1)])
                squares[chunk.start] = per_row.double() @ scale.double().square()

    share_chunks(loop, device_slices(values), values.device)
    return IntegerRows(codes, scales, relative_error(squares) if measure_error else None)


def row_amax(rows: torch.Tensor) -> torch.Tensor:
    """Return ``max |value|`` of each row ``[R]``, without a copy of the rows."""
    if not rows.shape[1]:
        return rows.new_zeros(len(rows))
    low, high = torch.aminmax(rows, dim=1)
    return torch.maximum(high, -low)


def decode_rows(codes: torch.Tensor, scales: torch.Tensor, group: int | None) -> torch.Tensor:
    """Return float32 values of codes ``[R, in]`` with one scale, or one scale per row.

    Codes are rotated back before they are scaled. In float32, sums of so few small integers are
    exact, so the result does not depend on the number of rows that are decoded at once.
    comfy-kitchen scales first, so its last bits differ.
    """
    values = codes.float()
    if group is not None:
        values = rotate(values, group)
    return values.mul_(scales.float().reshape(-1, 1))


def round_inputs_to_int8(
    activations: torch.Tensor, group: int | None, dtype: torch.dtype
) -> torch.Tensor:
    """Return the activations that comfy-kitchen's int8 product uses, with one scale per token.

    Args:
        activations: ``[tokens, in]``; divided in their own dtype, as in the CUDA kernel.
        group: number of channels that are rotated together first; None for no rotation.
        dtype: dtype of the result, which is rotated back.
    """

    def encode(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = (row_amax(rows).float() / INT8_MAX).clamp(min=INT8_FLOOR).unsqueeze(1)
        divisor = scale.to(rows.dtype)
        divisor = divisor.masked_fill(divisor == 0, torch.finfo(rows.dtype).tiny)
        return (rows / divisor).round_().clamp_(-128.0, INT8_MAX), scale

    return _round_inputs(activations, group, dtype, encode)


def round_inputs_to_int4(activations: torch.Tensor, group: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the activations that comfy-kitchen's int4 product uses; see `round_inputs_to_int8`."""

    def encode(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = row_amax(rows).clamp(min=_INT4_SMALLEST).div_(INT4_MAX).unsqueeze(1)
        codes = (rows / scale).round_().clamp_(-INT4_MAX, INT4_MAX)
        return codes.masked_fill_(scale == 0, 0.0), scale  # in fp16, the lower limit is zero

    return _round_inputs(activations, group, dtype, encode)


def _round_inputs(
    activations: torch.Tensor,
    group: int | None,
    dtype: torch.dtype,
    encode: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> torch.Tensor:
    result = torch.empty(activations.shape, dtype=dtype, device=activations.device)

    def loop(chunks: Iterable[slice]) -> None:
        for chunk in chunks:
            rows = activations[chunk]
            codes, scale = encode(rows if group is None else rotate_inputs(rows, group))
            result[chunk] = decode_rows(codes, scale, group)

    share_chunks(loop, device_slices(activations), activations.device)
    return result
