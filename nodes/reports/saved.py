"""What a node does after it saved a checkpoint: read it back, describe it, write its card."""

from __future__ import annotations

from pathlib import Path

from ...quant.checkpoint import verify_checkpoint
from ...quant.errors import CheckpointError
from ...quant.reports.card import write_card
from ...quant.text import format_bytes, shorten
from ..bridge.progress import progress_bar


def check_saved(path: Path, *, model_card: bool = False) -> list[str]:
    """Verify a checkpoint that was just written, and write its card if asked to.

    Returns:
        lines for the report: the path, the size, the result of the verification, the card.

    Raises:
        CheckpointError: the file on disk is not what was written.
    """
    result = verify_checkpoint(path, on_progress=progress_bar())
    if not result.ok:
        raise CheckpointError(
            f"{path} was written but cannot be read back as it should: "
            f"{shorten(result.problems, 3)}. Check the disk, delete the file and save again"
        )
    lines = [
        f"saved {path}",
        f"{format_bytes(path.stat().st_size)}; verified: {result.quantized} quantized of "
        f"{result.layers} layers read back without problems",
    ]
    return [*lines, f"model card {write_card(path)}"] if model_card else lines
