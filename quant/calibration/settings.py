"""What a collector may be told."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    rows_per_layer: int = 256
    memory_budget_bytes: int = 512 * 2**20
    mean_square_tokens: int | None = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows_per_layer < 0 or self.memory_budget_bytes < 0 or self.seed < 0:
            raise CalibrationError(
                "rows_per_layer, memory_budget_bytes and seed cannot be negative"
            )
        if self.mean_square_tokens is not None and self.mean_square_tokens < 1:
            raise CalibrationError("mean_square_tokens must be at least 1, or None for all tokens")
