"""Round to integers with one scale per row: common code of the int8 and int4 formats.

The operations and their order are those of comfy-kitchen in float32, so codes and scales agree bit
for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from .base import device_slices, relative_error
from .fixed_grid import rounded_parts
from .parallel import share_chunks
from .rotation import rotate, rotate_inputs
from .rule import ErrorFeedback

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
    feedback: ErrorFeedback | None = None,
    group: int | None = None,
    measure_error: bool = False,
) -> IntegerRows:
    """Round every row of a weight to integer multiples of its scale, half to even.

    Works in chunks of rows.

    Args:
        values: ``[out, in]``, any float dtype, finite.
        row_scales: chooses the scale of each row.
        limits: the smallest and the largest code.
        floor: the smallest scale.
        feedback: rounds the rows in units of their scales; None: every value to the nearest.
        group: number of channels that were rotated together; None for no rotation.
        measure_error: whether to measure the relative error (Frobenius norm).
    """
    plain = _to_nearest(
        values, row_scales, limits, floor, measure_error=measure_error and feedback is None
    )
    if feedback is None:
        return plain
    return _with_feedback(plain, values, limits, feedback, group or 1, measure_error)


def _to_nearest(
    values: torch.Tensor,
    row_scales: RowScales,
    limits: tuple[float, float],
    floor: float,
    *,
    measure_error: bool,
) -> IntegerRows:
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
            if measure_error:
                squares[chunk.start] = _squares(rounded, scaled, scale)

    share_chunks(loop, device_slices(values), values.device)
    return IntegerRows(codes, scales, relative_error(squares) if measure_error else None)


def _with_feedback(
    plain: IntegerRows,
    values: torch.Tensor,
    limits: tuple[float, float],
    feedback: ErrorFeedback,
    group: int,
    measure_error: bool,
) -> IntegerRows:
    """Return rows with the same scales, rounded with error feedback."""
    squares: dict[int, torch.Tensor] = {}

    def round_into(wanted: torch.Tensor, out: torch.Tensor) -> None:
        torch.round(wanted, out=out)
        out.clamp_(*limits)

    def units(part: slice) -> torch.Tensor:
        return values[part].float() / plain.scales[part].unsqueeze(1)

    shape = (values.shape[0], values.shape[1])
    for part, wanted, rounded in rounded_parts(feedback, round_into, units, shape, group=group):
        plain.codes[part] = rounded.to(torch.int8)
        if measure_error:
            squares[part.start] = _squares(rounded, wanted, plain.scales[part])
    return replace(plain, relative_error=relative_error(squares) if measure_error else None)


def _squares(rounded: torch.Tensor, wanted: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return ``[squared error, squared norm]`` of rows in units of their scales. Destroys them.

    In units of the scale, nothing overflows.
    """
    errors = rounded.sub_(wanted).square_().sum(1)
    per_row = torch.stack([errors, wanted.square_().sum(1)])
    return per_row.double() @ scale.double().square()


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
