"""The runs and model calls that a collector observed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from ..errors import CalibrationError
from .records import BRANCH_NAMES, UNKNOWN_BRANCH, RunRecord


class RunLog:
    """The runs in the order they began, and the run and sigma of every model call.

    The sigma of a call stays a tensor on its device until `call_table` reads it.
    """

    def __init__(self) -> None:
        """Start without a run."""
        self.runs: list[RunRecord] = []
        self._calls: list[tuple[int, float | torch.Tensor]] = []
        self._current: tuple[int, tuple[int, ...]] = (0, (UNKNOWN_BRANCH,))

    @property
    def has_run(self) -> bool:
        """Whether a run has begun."""
        return bool(self.runs)

    @property
    def run_count(self) -> int:
        """Number of runs that have begun."""
        return len(self.runs)

    @property
    def steps(self) -> int | None:
        """Sampling steps of the current run; None if its settings do not say."""
        steps = self.runs[-1].settings.get("steps")
        return steps if isinstance(steps, int) and steps > 0 else None

    @property
    def run_id(self) -> str:
        """Id of the current run."""
        return self.runs[-1].id

    @property
    def current_call(self) -> tuple[int, tuple[int, ...]]:
        """Index of the current model call and its CFG branches."""
        return self._current

    def begin_run(
        self, prompts: str | Sequence[str], settings: Mapping[str, Any], run_id: str | None
    ) -> None:
        """Start a run. Forwards before its first call count as one call of unknown sigma."""
        run = RunRecord(
            id=_checked_id(run_id, self.runs),
            started=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
            prompts=(prompts,) if isinstance(prompts, str) else tuple(prompts),
            calls=0,
            settings=_json_copy(settings),
        )
        self.runs.append(run)
        self.end_call()

    def begin_call(
        self, sigma: float | torch.Tensor | None, cond_or_uncond: tuple[int, ...]
    ) -> None:
        """Start a model call of the current run."""
        value = _first_element(float("nan") if sigma is None else sigma)
        branches = tuple(b if b in BRANCH_NAMES else UNKNOWN_BRANCH for b in cond_or_uncond)
        self.runs[-1] = replace(self.runs[-1], calls=self.runs[-1].calls + 1)
        self._append(value, branches)

    def end_call(self) -> None:
        """End the current call. Forwards that follow have an unknown sigma and branch."""
        self._append(float("nan"), (UNKNOWN_BRANCH,))

    def call_table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the run index (int32) and sigma (float32) of every call. Reads from the device."""
        self._calls = [(run, float(sigma)) for run, sigma in self._calls]
        run = np.array([r for r, _ in self._calls], dtype=np.int32)
        return run, np.array([s for _, s in self._calls], dtype=np.float32)

    def _append(self, sigma: float | torch.Tensor, branches: tuple[int, ...]) -> None:
        self._current = (len(self._calls), branches)
        self._calls.append((len(self.runs) - 1, sigma))


def _first_element(sigma: Any) -> float | torch.Tensor:
    """Return a copy of the first element, on its device: the sampler may change the tensor."""
    if not isinstance(sigma, torch.Tensor):
        return float(sigma)
    return sigma.detach().reshape(-1)[:1].clone() if sigma.numel() else float("nan")


def _checked_id(run_id: str | None, runs: Sequence[RunRecord]) -> str:
    if run_id is None:
        return uuid.uuid4().hex
    try:
        checked = uuid.UUID(hex=run_id).hex
    except ValueError as error:
        raise CalibrationError(f"a run id must be a UUID in hex, not {run_id!r}") from error
    if any(run.id == checked for run in runs):
        raise CalibrationError(
            f"this collector already has a run {checked}; give each run an id of its own"
        )
    return checked


def _json_copy(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy made through JSON, to refuse values that cannot be saved before sampling."""
    try:
        return json.loads(json.dumps(dict(settings)))
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"the settings of a run must be JSON values: {error}") from error
