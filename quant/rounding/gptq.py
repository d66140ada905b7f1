"""GPTQ: channels that are rounded later compensate the errors of the earlier ones.

Unlike in the original, block scales are chosen inside the feedback loop: each block of channels
tries all candidate scales, given the errors of the earlier blocks. ``gptaq`` also changes the
target to the weight that is best for *rounded* inputs, which recovers a part of the loss by 4-bit
activations. This is the asymmetric objective of Li et al. 2025 (GPTAQ, arXiv 2504.02692), solved by
a regression without the share that chance explains (see ``feedback.py``).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..formats.base import row_slices
from ..formats.parallel import share_chunks
from ..formats.rule import BlockGrid, ErrorFeedback
from .feedback import FeedbackFactor, factorize
from .second_moments import BAND, SecondMoments
from .sweep import SweepRule

# Number of columns whose feedback is applied together, as one matrix product.
_PANEL = 128
# Rows per chunk. The working set of a chunk has the shape [rows, candidates, 16].
_CHUNK_ROWS_CPU = 512
_CHUNK_ROWS_GPU = 4096
# What a row of a chunk takes while it is rounded, at most: copies of it, and float32 values for the
# candidate scales of one block (measured: 4.1 and 540, see tests/comfyui/test_cuda.py).
_ROW_COPIES, _CANDIDATE_VALUES = 5, 600
# Vectors [K] that are in memory while the factor is made, at most.
_VECTORS = 16


class GptqRule(SweepRule):
    """Rounding with error feedback. Without second moments, it does the same as `weighted`.

    With the name ``gptq``, the target is the weight itself. With the name ``gptaq``, it is the best
    weight for rounded inputs, for layers whose activations the runtime rounds.
    """

    def __init__(
        self,
        name: str,
        channel_weights: torch.Tensor | None = None,
        moments: SecondMoments | None = None,
    ):
        super().__init__(name, channel_weights)
        self._moments = moments
        self._factor: FeedbackFactor | None = None
        self._basis = (0, 0)  # the block and the group that the factor is for
        self._has_regression = False

    @property
    def feedback(self) -> ErrorFeedback | None:
        """This rule itself where second moments are known.

        Not an attribute: in a circle of references the Hessian would wait for the collector.
        """
        return self if self._moments is not None else None

    def for_input(
        self, mean_square: torch.Tensor | None, moments: SecondMoments | None = None
    ) -> SweepRule:
        """Return the rule for a layer with this input; `weighted` without second moments."""
        plain = SweepRule("weighted").for_input(mean_square)
        if moments is None:
            return plain
        return GptqRule(self.name, plain.channel_weights, moments)

    def untargeted(self) -> GptqRule:
        """Return ``gptq`` for the same input. It shares the factor computed for ``gptaq``."""
        other = GptqRule("gptq", self.channel_weights, self._moments)
        other._factor, other._basis = self._factor, self._basis
        return other

    def round_blocks(
        self, weight: torch.Tensor, grid: BlockGrid, *, rounded_input: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Round a weight with error feedback; see `ErrorFeedback.round_blocks`."""
        compensate = self.name == "gptaq" and rounded_input
        factor = self._factor_for(grid, weight.device, compensate=compensate)
        return round_with_feedback(weight, factor, grid, compensate=compensate)

    def _factor_for(
        self, grid: BlockGrid, device: torch.device, *, compensate: bool
    ) -> FeedbackFactor:
        """Return the factor for a grid, with a regression if asked.

        The Hessian's copy on a GPU is gone afterwards.
        """
        has_all = self._has_regression or not compensate
        if self._factor is None or self._basis != (grid.block, grid.group) or not has_all:
            assert self._moments is not None
            self._factor = None  # two factors are never in memory together
            moments = self._moments.to(device)
            if grid.group > 1:
                moments = moments.rotated(grid.group)
            elif compensate:
                moments = moments.with_residual()
            self._factor = factorize(moments, grid.block, compensate=compensate)
            self._basis, self._has_regression = (grid.block, grid.group), compensate
        return self._factor

    def working_bytes(self, columns: int, rows: int = _CHUNK_ROWS_GPU) -> int:
        """Return the most memory that rounding takes on a GPU, besides the weight, in bytes.

        K is the number of input channels, ``columns``. The factor is a float32 matrix [K, K], and
        ``gptaq`` keeps one more. While the factor is made, the Hessian is in memory too. When it is
        made, there is a chunk of ``rows`` instead.
        """
        kept = (2 if self.name == "gptaq" else 1) * columns**2
        making = columns * (columns + 2 * BAND + _VECTORS)
        rounding = rows * (_ROW_COPIES * columns + _CANDIDATE_VALUES)
        return 4 * (kept + max(making, rounding))


def round_with_feedback(
    weight: torch.Tensor,
    factor: FeedbackFactor,
    grid: BlockGrid,
    *,
    compensate: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a weight ``[rows, K]`` to a grid with error feedback.

    Returns:
        float32 values ``[rows, K]`` and uint8 scale codes ``[rows, K / block]``.
    """
    rows, columns = weight.shape
    values = torch.empty(rows, columns, dtype=torch.float32, device=weight.device)
    scales = torch.empty(rows, columns // grid.block, dtype=torch.uint8, device=weight.device)
    on_cpu = weight.device.type == "cpu"
    step = _CHUNK_ROWS_CPU if on_cpu else _CHUNK_ROWS_GPU

    def loop(chunks: Iterable[slice]) -> None:
        for chunk in chunks:
            target = factor.permute(weight[chunk], compensate=compensate)
            rounded, codes = _round_rows(target, factor, grid)
            values[chunk] = factor.restore(rounded)
            blocks = factor.order[:: grid.block].div(grid.block, rounding_mode="floor")
            scales[chunk] = torch.empty_like(codes).index_copy_(1, blocks, codes)

    share_chunks(loop, row_slices(rows, 1, step), weight.device)
    return values, scales


def _round_rows(
    target: torch.Tensor, factor: FeedbackFactor, grid: BlockGrid
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round rows ``[R, K]`` in the factor's order, from the last column to the first.

    Returns:
        float32 values ``[R, K]`` and uint8 scale codes ``[R, K / block]``, in the factor's order.
    """
    rows, columns = target.shape
    size = grid.block
    values = torch.empty_like(target)
    codes = torch.empty(rows, columns // size, dtype=torch.uint8, device=target.device)
    errors = torch.zeros_like(target)
    lower = factor.lower
    for stop in range(columns, 0, -_PANEL):
        start = max(0, stop - _PANEL)
        wanted = target[:, start:stop].clone()
        if stop < columns:
            wanted.addmm_(errors[:, stop:], lower[stop:, start:stop])
        for last in range(stop, start, -size):
            first = last - size
            block = slice(first, last)
            inherited = wanted[:, first - start : last - start]
            rounded, code = _round_block(
                target[:, block],
                inherited,
                lower[block, block],
                factor.weight[block],
                grid,
            )
            values[:, block] = rounded
            codes[:, first // size] = code
            errors[:, block] = target[:, block] - rounded
            if first > start:
                wanted[:, : first - start].addmm_(errors[:, block], lower[block, start:first])
    return values, codes


def _round_block(
    target: torch.Tensor,
    inherited: torch.Tensor,
    lower: torch.Tensor,
    cost: torch.Tensor,
    grid: BlockGrid,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round one block ``[R, block]`` with every candidate scale, and keep the best of each row.

    ``inherited`` is the target corrected for the errors of the blocks that are already rounded.
    """
    amax = inherited.abs().amax(1)
    codes = grid.candidates(amax)
    round_into = grid.rounding(codes)
    has_choice = codes.shape[1] > 1
    # The channel is the first axis, so that each step works on contiguous [R, candidates].
    wanted = inherited.t().unsqueeze(2).expand(-1, -1, codes.shape[1]).contiguous()
    rounded = torch.empty_like(wanted)
    loss = torch.zeros_like(wanted[0])
    scratch = torch.empty_like(loss)
    for k in range(grid.block - 1, -1, -1):
        value = rounded[k]
        round_into(wanted[k], value)
        if has_choice:
            torch.sub(value, wanted[k], out=scratch)
            loss.addcmul_(scratch.square_(), cost[k])
        if k:
            error = torch.sub(target[:, k : k + 1], value, out=scratch)
            wanted[:k] += lower[k, :k].view(-1, 1, 1) * error
    if not has_choice:
        return rounded.squeeze(2).t(), codes.squeeze(1)
    best = loss.argmin(1, keepdim=True)
    chosen = rounded.gather(2, best.expand(grid.block, -1, -1)).squeeze(2).t()
    return chosen, codes.gather(1, best).squeeze(1)
