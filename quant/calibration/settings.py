"""What a collector may be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import CalibrationError


@dataclass(frozen=True)
class CollectorSettings:
    """Settings of an `ActivationCollector`; `CalibrationError` for values without meaning.

    rows_per_layer: activation rows to sample per distinct input.
    memory_budget_bytes: bound on all sampled rows together; they live on the device of the
        activations. When it is too small every input gets equally fewer rows.
    mean_square_tokens: tokens per record behind E[x^2], evenly spread; None for all. The amax
        always covers every token.
    seed: of the row sampling; mixed with the id of each run, so runs never share priorities.
    moments_budget_bytes: bound on the second moments gathered at one time, for gptq; 0 for none.
        They live on the device of the activations during a run, and another set of inputs is
        gathered in every run until each has enough.
    moments_tokens_per_channel: an input has enough at this many tokens for each of its channels.
    moments_layers: gather them for these layers only; None for all that are observed.
    moments_folder: where each run's share is put; None keeps it in memory.
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
                "rows_per_layer, memory_budget_bytes and seed cannot be negative"
            )
        if self.moments_budget_bytes < 0 or not self.moments_tokens_per_channel > 0:
            raise CalibrationError(
                "moments_budget_bytes cannot be negative, and moments_tokens_per_channel must be "
                "above 0"
            )
        if self.mean_square_tokens is not None and self.mean_square_tokens < 1:
            raise CalibrationError("mean_square_tokens must be at least 1, or None for all tokens")
