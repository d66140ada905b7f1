"""What a format asks of the rule that chooses its numbers, and what it offers to the rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

#: Rounds values, float32, to values on a grid, and writes these into a tensor of the same shape.
RoundInto = Callable[[torch.Tensor, torch.Tensor], None]


class BlockGrid(Protocol):
    """The values that a format can store in each block of input channels.

    Formats with scales for larger parts than blocks choose them before (see ``fixed_grid``).
    """

    @property
    def block(self) -> int:
        """Input channels per scale."""
        ...

    @property
    def group(self) -> int:
        """Input channels that are rotated together (see ``rotation``); 1: not rotated."""
        ...

    def candidates(self, block_amax: torch.Tensor) -> torch.Tensor:
        """Return the scale codes to try, uint8 ``[B, C]``, for block maxima ``[B]`` float32."""
        ...

    def rounding(self, codes: torch.Tensor) -> RoundInto:
        """Return what rounds one value each of blocks with these scales.

        It takes values in the shape of the codes, and another tensor to write to.
        """
        ...


class ErrorFeedback(Protocol):
    """Rounds a weight channel by channel, and lets later channels compensate earlier errors."""

    def round_blocks(
        self, weight: torch.Tensor, grid: BlockGrid, *, rounded_input: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Round a weight to a grid.

        Args:
            weight: ``[out, in]``, any float dtype, rotated like the grid, ``in`` a multiple of the
                grid's block and group.
            grid: the values that the format can store.
            rounded_input: whether the runtime rounds the layer's activations too.

        Returns:
            float32 values ``[out, in]`` on the grid, uint8 scale codes ``[out, in / block]``.
        """
        ...


class ScaleRule(Protocol):
    """How the codes and scales of a weight are chosen; implemented in ``quant/rounding``.

    A rule does not know any format. The format asks the rule whether to search for scales and how
    much each channel counts, and offers its grid to error feedback.
    """

    name: str

    @property
    def searches(self) -> bool:
        """Whether to search for the scales of least squared error. If not, use the max rule."""
        ...

    @property
    def channel_weights(self) -> torch.Tensor | None:
        """How much the squared error of each channel counts, float32 ``[in]``; None: equally."""
        ...

    @property
    def feedback(self) -> ErrorFeedback | None:
        """The error feedback to round with; None means round every value to the nearest."""
        ...
