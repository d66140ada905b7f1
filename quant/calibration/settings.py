"""The settings of a collector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import CalibrationError


@dataclass(frozen=True)
class CollectorSettings:
    """Settings of an `ActivationCollector`. Raises `CalibrationError` for invalid values.

    Attributes:
        rows_per_layer: activation rows to sample per distinct input.
        memory_budget_bytes: limit for all sampled rows together, which are on the device of the
            activations. If it is too small, every input gets fewer rows, all the same number.
        mean_square_tokens: tokens per record used for E[x^2], evenly spread; None for all. The
            amax always covers every token.
        seed: seed of the row sampling, combined with the id of each run, so that two runs never
            draw the same priorities.
        moments_budget_bytes: limit for the second moments collected at one time, for gptq; 0 for
            none. They are on the device of the activations during a run. Each run collects them
            for other inputs, until each input has enough.
        moments_tokens_per_channel: tokens per channel at which an input has enough.
        moments_layers: the layers to collect them for; None for all that are observed.
        moments_folder: folder for the second moments of each run; None keeps them in memory.
    """

    rows_per_layer: int = 256
    memory_budget_bytes: int = 512 * 2**20
    mean_square_tokens: int | None = 1024
    seed: int = 0
    moments_budget_bytes: int = 0
    moments_tokens_per_channel: float = 8.0
    moments_layers: frozenset[str] | None = None
    moments_folder: Path | None = None

    def __post_init__(self) -> None:
        if self.rows_per_layer < 0 or self.memory_budget_bytes < 0 or self.seed < 0:
            raise CalibrationError(
                "rows_per_layer, memory_budget_bytes and seed must not be negative"
            )
        if self.moments_budget_bytes < 0 or not self.moments_tokens_per_channel > 0:
            raise CalibrationError(
                "moments_budget_bytes must not be negative, and moments_tokens_per_channel must be "
                "above 0"
            )
        if self.mean_square_tokens is not None and self.mean_square_tokens < 1:
            raise CalibrationError("mean_square_tokens must be at least 1, or None for all tokens")
