"""Round a rotated weight to a codebook, with a scale per block and one per row.

The operations and their order are comfy-kitchen's in float32, so codes and scales agree bit for
bit. Only the way to the nearest level differs (see ``codebook``), and the search for better scales
is ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from .base import device_slices, relative_error, row_slices
from .codebook import LEVELS, NearestLevel, codebook_for, gaussian_codebook
from .codebook_grid import CodebookGrid
from .e4m3 import decode_e4m3
from .integers import INT8_MAX
from .parallel import share_chunks
from .rotation import rotate
from .rule import ErrorFeedback

BLOCK = 16
# Values that are rotated at once, and from which the codebook is chosen: comfy-kitchen's numbers,
# because the last bits of a rotation depend on the number of rows.
_ROTATED_VALUES = 1 << 22
# comfy-kitchen's lower limit of all scales and their denominators.
_SMALLEST = 1e-8
# How often the block scales are fitted to the codes.
_REFINEMENTS = 2
# Weights whose largest value is outside of these limits are scaled by a power of two first, so
# that they neither vanish below the smallest scale nor overflow in the rotation.
_LEAST_AMAX, _MOST_AMAX = 2.0**-17, 2.0**100
# E4M3 codes to try around that of the fitted scale. Those further away take off less than a
# hundredth of the squared error.
_SEARCHED_STEPS = (-4, -3, -2, -1, 1, 2, 3, 4)
_LARGEST_CODE = 0x7E  # 448; 0x7F is NaN
# So many that usual levels, which are a tenth apart, are many cells apart.
_CODEBOOK_CELLS = 1024


@dataclass(frozen=True, eq=False)
class CodebookRows:
    """What is stored of a weight ``[out, in]``.

    ``packed`` int8 ``[out, in / 2]``; ``block_scales`` float8_e4m3fn ``[out, in / 16]``;
    ``row_scales`` float32 ``[out]``; ``codebook`` float32 ``[16]``; the relative error if measured.
    """

    packed: torch.Tensor
    block_scales: torch.Tensor
    row_scales: torch.Tensor
    codebook: torch.Tensor
    relative_error: float | None


def quantize_rotated(
    weight: torch.Tensor, amax: float, group: int, *, search: bool, measure_error: bool
) -> CodebookRows:
    """Rotate a weight and round it, in bounded chunks of rows.

    Args:
        weight: ``[out, in]``, any float dtype, finite.
        amax: its largest magnitude.
        group: channels that are rotated together.
        search: whether to search for the block scales of least squared error.
        measure_error: whether to measure the relative error (Frobenius norm).
    """
    rows, columns = weight.shape
    device = weight.device
    unit = _unit(amax)
    table = _table(tuple(_choose_codebook(weight, group, unit).tolist()), device)
    packed = torch.empty(rows, columns // 2, dtype=torch.int8, device=device)
    block_scales = torch.empty(rows, columns // BLOCK, dtype=torch.uint8, device=device)
    row_scales = torch.empty(rows, dtype=torch.float32, device=device)
    squares: dict[int, torch.Tensor] = {}
    for part in row_slices(rows, columns, _ROTATED_VALUES):
        rotated = _rotated(weight[part], group, unit)

        def loop(
            chunks: Iterable[slice], rotated: torch.Tensor = rotated, start: int = part.start
        ) -> None:
            for chunk in chunks:
                own = slice(start + chunk.start, start + chunk.stop)
                found = _round_rows(rotated[chunk], table, search)
                packed[own] = _pack(found.codes)
                block_scales[own] = found.block_scales
                row_scales[own] = found.row_scales
                if measure_error:
                    squares[own.start] = found.squares(table)

        share_chunks(loop, device_slices(rotated), device)
    error = relative_error(squares) if measure_error else None
    scales = block_scales.view(torch.float8_e4m3fn)
    return CodebookRows(packed, scales, row_scales.mul_(unit), table.codebook.clone(), error)


def quantize_with_feedback(
    weight: torch.Tensor, amax: float, group: int, feedback: ErrorFeedback, *, measure_error: bool
) -> CodebookRows:
    """Rotate a weight and round it with error feedback, in bounded chunks of rows.

    The row scales and the codebook are those of `quantize_rotated`. The block scales are chosen
    with the feedback. For the arguments see there.
    """
    plain = quantize_rotated(weight, amax, group, search=False, measure_error=False)
    unit = _unit(amax)
    table = _table(tuple(plain.codebook.tolist()), weight.device)
    row_scales = plain.row_scales / unit
    block_scales = plain.block_scales.view(torch.uint8)
    squares: dict[int, torch.Tensor] = {}
    for part in row_slices(weight.shape[0], weight.shape[1], _ROTATED_VALUES):
        target = _rotated(weight[part], group, unit).div_(row_scales[part].unsqueeze(1))
        values, scales = feedback.round_blocks(target, table.grid(group), rounded_input=False)
        blocks = values.view(*scales.shape, BLOCK)
        codes = table.nearest_codes(blocks, scales.int()).view(values.shape)
        plain.packed[part], block_scales[part] = _pack(codes), scales
        if measure_error:
            found = _Rounded(codes, scales, row_scales[part], target)
            squares[part.start] = found.squares(table)
    error = relative_error(squares) if measure_error else None
    return replace(plain, relative_error=error)


def unpack_codes(
    packed: torch.Tensor, block_scales: torch.Tensor, codebook: torch.Tensor | None
) -> torch.Tensor:
    """Return the integers that codes stand for, float32 ``[rows, columns]``.

    Args:
        packed: int8 ``[rows, columns / 2]``.
        block_scales: float8_e4m3fn or float32 ``[rows, blocks]``.
        codebook: float32 ``[16]``; None: the codes stand for -8 to 7.
    """
    low, high = packed & 0x0F, (packed >> 4) & 0x0F
    codes = torch.stack([low, high], dim=-1).reshape(len(packed), -1).int()
    if codebook is None:
        values = codes.float().sub_(8.0)
    else:
        values = codebook.to(packed.device, torch.float32).reshape(-1)[codes]
    blocks = values.view(len(packed), block_scales.shape[1], -1)
    blocks.mul_(_as_float(block_scales).unsqueeze(-1))
    return values.round_().clamp_(-INT8_MAX, INT8_MAX)


def _as_float(scales: torch.Tensor) -> torch.Tensor:
    return decode_e4m3(scales) if scales.dtype == torch.float8_e4m3fn else scales.float()


class _Table:
    """A codebook with what every chunk needs of it.

    ``levels`` are the integers of each code for every E4M3 block scale, float32 ``[128, 16]``.
    """

    def __init__(self, codebook: torch.Tensor, device: torch.device) -> None:
        codes = torch.arange(128, dtype=torch.uint8)
        scales = codes.view(torch.float8_e4m3fn).float()
        scales[_LARGEST_CODE + 1] = 0.0  # NaN
        levels = codebook.unsqueeze(0) * scales.unsqueeze(1)
        levels = levels.round_().clamp_(-INT8_MAX, INT8_MAX)
        # The tables are made on the CPU, because their thresholds are found step by step.
        self._nearest = NearestLevel(codebook.unsqueeze(0), 1.0, _CODEBOOK_CELLS)
        self._nearest.move_to(device)
        # Midpoints of integers are multiples of a half, so each is in a cell of its own.
        self._nearest_integer = NearestLevel(levels, INT8_MAX, 2 * int(INT8_MAX))
        self._nearest_integer.move_to(device)
        self.codebook, self.levels = codebook.to(device), levels.to(device)

    def grid(self, group: int) -> CodebookGrid:
        """Return the values that blocks can store, for weights in units of their row scales."""
        return CodebookGrid(self.levels, self._nearest_integer, block=BLOCK, group=group)

    def nearest(self, values: torch.Tensor) -> torch.Tensor:
        """Return the levels of the codebook that are nearest to values, in their shape."""
        codes = self._nearest(values).view(-1)
        return self.codebook.index_select(0, codes).view(values.shape)

    def nearest_codes(self, target: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Return the codes of the nearest integers that the blocks can store, int32.

        Args:
            target: values in units of the row scales, float32 ``[R, blocks, 16]``.
            scales: E4M3 codes of the block scales, int32 ``[R, blocks]``.
        """
        return self._nearest_integer(target, scales)

    def integers(self, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Return the integers that codes ``[R, blocks, 16]`` stand for, float32."""
        index = (scales * LEVELS).unsqueeze(-1) + codes
        return self.levels.view(-1).index_select(0, index.view(-1)).view(codes.shape)

    def squared_error(self, target: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Return the squared error of each block ``[R, blocks]`` with these scales."""
        found = self.integers(self.nearest_codes(target, scales), scales)
        return found.sub_(target).square_().sum(-1)


@lru_cache(maxsize=4)
def _table(codebook: tuple[float, ...], device: torch.device) -> _Table:
    """Return the table of a codebook. Nearly all weights have the same one."""
    with torch.inference_mode(False):  # the cached tensors must also work outside inference mode
        return _Table(torch.tensor(codebook, dtype=torch.float32), device)


@dataclass(frozen=True, eq=False)
class _Rounded:
    """Codes int32 ``[R, in]``, uint8 block scales ``[R, blocks]``, row scales ``[R]``, and the
    weight in units of the row scales ``[R, in]``."""

    codes: torch.Tensor
    block_scales: torch.Tensor
    row_scales: torch.Tensor
    target: torch.Tensor

    def squares(self, table: _Table) -> torch.Tensor:
        """Return ``[squared error, squared norm]``, float64."""
        blocks = self.codes.view(*self.block_scales.shape, BLOCK)
        error = table.integers(blocks, self.block_scales.int()).view(self.target.shape)
        error = error.sub_(self.target).square_().sum(1)
        per_row = torch.stack([error, self.target.square().sum(1)])
        return per_row.double() @ self.row_scales.double().square()


def _round_rows(rotated: torch.Tensor, table: _Table, search: bool) -> _Rounded:
    """Round rows ``[R, in]`` of a rotated weight."""
    rows = len(rotated)
    values = rotated.view(rows, -1, BLOCK)
    scale = values.abs().amax(-1, keepdim=True).clamp_(min=_SMALLEST)
    level = table.nearest(values / scale)
    for _ in range(_REFINEMENTS):
        product, square = (values * level).sum(-1, keepdim=True), (level * level).sum(-1, True)
        scale = product.div_(square.clamp_(min=_SMALLEST)).clamp_(min=_SMALLEST)
        level = table.nearest(values / scale)
    widest = (level * scale).abs_().amax(dim=(1, 2))
    row_scale = (widest / widest.new_full((), INT8_MAX)).clamp_(min=_SMALLEST)
    relative = (scale.squeeze(-1) / row_scale.unsqueeze(1)).to(torch.float8_e4m3fn)
    target = values / row_scale.view(-1, 1, 1)
    step = relative.view(torch.uint8).int()
    if search:
        step = _searched(target, step, table)
    codes = table.nearest_codes(target, step)
    return _Rounded(codes.view(rows, -1), step.to(torch.uint8), row_scale, target.view(rows, -1))


def _searched(target: torch.Tensor, step: torch.Tensor, table: _Table) -> torch.Tensor:
    """Return the E4M3 codes of the block scales with the least squared error."""
    best, least = step, table.squared_error(target, step)
    for change in _SEARCHED_STEPS:
        tried = (step + change).clamp_(0, _LARGEST_CODE)
        error = table.squared_error(target, tried)
        better = error < least
        least = torch.where(better, error, least)
        best = torch.where(better, tried, best)
    return best


def _choose_codebook(weight: torch.Tensor, group: int, unit: float) -> torch.Tensor:
    """Choose the codebook (on the CPU) by evenly spread rows, as many as are rotated at once.

    Unlike in comfy-kitchen, blocks of zeros do not count. Any table stores them exactly, but a few
    rows of zeros among others would look like heavy tails, and half of them make its fitted table
    useless: 12% to 35% of the weight were lost.
    """
    rows, columns = weight.shape
    most = max(1, _ROTATED_VALUES // max(1, columns))
    if rows > most:
        index = torch.linspace(0, rows - 1, most, device=weight.device).long()
        weight = weight.index_select(0, index)
    blocks = _rotated(weight, group, unit).view(-1, BLOCK)
    amax = blocks.abs().amax(-1, keepdim=True)
    is_zero = amax.squeeze(-1) == 0
    if bool(is_zero.any()):
        blocks, amax = blocks[~is_zero], amax[~is_zero]
    if not blocks.numel():
        return gaussian_codebook()
    return codebook_for(blocks / amax.clamp_(min=_SMALLEST))


def _rotated(weight: torch.Tensor, group: int, unit: float) -> torch.Tensor:
    values = weight.float().contiguous()
    return rotate(values if unit == 1.0 else values / unit, group)


def _pack(codes: torch.Tensor) -> torch.Tensor:
    return (codes[:, 0::2] | (codes[:, 1::2] << 4)).to(torch.int8)


def _unit(amax: float) -> float:
    """Return the power of two by which a weight is divided before it is rounded."""
    if amax == 0 or _LEAST_AMAX <= amax <= _MOST_AMAX:
        return 1.0
    return 2.0 ** (int(torch.tensor(amax).frexp().exponent) - 1)
