"""What a format asks of the rule that chooses its numbers, and what it offers to the rule."""

from __future__ import annotations

from typing import Protocol

import torch


class BlockGrid(Protocol):
    """The values that a format with one scale per block of input channels can store."""

    @property
    def block(self) -> int:
        """Input channels per scale."""
        ...

    def candidates(self, block_amax: torch.Tensor) -> torch.Tensor:
        """Return the scale codes to try, uint8 ``[B, C]``, for block maxima ``[B]`` float32."""
        ...

    def scales(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the float32 scales of codes, in the shape of the codes."""
        ...

    def round_in_place(self, values: torch.Tensor, scratch: torch.Tensor) -> None:
        """Round float32 values, given in units of their scale, in place.

        ``scratch`` has the same shape and dtype, and is overwritten.
        """
        ...


class ErrorFeedback(Protocol):
    """Rounds a weight channel by channel, and lets later channels compensate earlier errors."""

    def round_blocks(
        self, weight: torch.Tensor, grid: BlockGrid, *, rounded_input: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Round a weight to a grid.

        Args:
            weight: ``[out, in]``, any float dtype, ``in`` a multiple of the grid's block.
            grid: the values that the format can store.
            rounded_input: whether the runtime rounds the layer's activations too.

        Returns:
            float32 values ``[out, in]`` on the grid, uint8 scale codes ``[out, in / block]``.
        """
        ...


class ScaleRule(Protocol):
    """How the codes and scales of a weight are chosen; implemented in ``quant/rounding``.

    A rule does not know any format. The format asks the rule whether to search for scales and how
    much each channel counts. A format with blocks also offers its grid to error feedback.
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
