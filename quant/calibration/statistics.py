"""The result of a calibration: statistics of every layer's input during real sampling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import CalibrationError
from ..fingerprint import ModelFingerprint
from .coverage import CoverageReport, is_partial, reference_calls
from .records import LayerStatistics, RunRecord, amax_by_branch

# Fewer rows from other runs are too few to judge by.
_FEWEST_ROWS = 32


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """Sampled input rows [R, K] that are not part of the second moments.

    ``from_other_runs``: the rows are from other sampling runs, so mostly from other prompts;
    otherwise they are other tokens of the same runs.
    """

    rows: torch.Tensor
    from_other_runs: bool

    def describe(self) -> str:
        """Return a short description, such as ``64 held-out tokens from other runs``."""
        origin = "other runs" if self.from_other_runs else "the same runs"
        return f"{len(self.rows)} held-out tokens from {origin}"


@dataclass(frozen=True, eq=False)
class CalibrationStatistics:
    """The calibration of one model over any number of sampling runs.

    ``layers`` maps layer names (without ``.weight``) to their statistics; layers that always
    received the same tensor map to the same object. ``changed_layers`` were observed, but their
    statistics had to be discarded (see `CoverageReport`). ``rows_per_layer`` is the capacity of
    the row samples.
    """

    layers: Mapping[str, LayerStatistics]
    fingerprint: ModelFingerprint
    runs: tuple[RunRecord, ...]
    rows_per_layer: int
    tool_versions: tuple[str, ...]
    changed_layers: tuple[str, ...] = ()

    @property
    def inputs(self) -> dict[str, LayerStatistics]:
        """The distinct inputs by ``input_id``."""
        return {layer.input_id: layer for layer in self.layers.values()}

    @property
    def model_calls(self) -> int:
        """Number of model calls announced over all runs."""
        return sum(run.calls for run in self.runs)

    def amax(self, layer: str) -> float | None:
        """Return the largest |x| a layer received; None when it has no finite record.

        Raises `CalibrationError` for a layer that was not observed.
        """
        return self._layer(layer).amax

    def percentile(self, layer: str, percent: float) -> float | None:
        """Return a percentile of a layer's per-record amax; see `LayerStatistics.percentile`."""
        return self._layer(layer).percentile(percent)

    def held_out_rows(self, layer: str) -> HeldOutRows:
        """Return the rows to judge a layer's rounding on.

        Raises `CalibrationError` for a layer that was not observed.
        """
        known = self._layer(layer)
        if known.moments is None:
            return HeldOutRows(known.rows, from_other_runs=False)
        seen = {run.id: run.prompts for run in self.runs if run.id in known.moments.runs}
        # An input that is the same in every step depends on the prompt alone, not on the seed.
        same = {prompts for prompts in seen.values() if prompts and known.moments.repeats}
        taken = [i for i, run in enumerate(self.runs) if run.id in seen or run.prompts in same]
        other = ~np.isin(known.row_run, [*taken, -1])
        if np.count_nonzero(other) < _FEWEST_ROWS:
            return HeldOutRows(known.rows, from_other_runs=False)
        return HeldOutRows(known.rows[torch.from_numpy(other)], from_other_runs=True)

    def coverage(self, expected_layers: Iterable[str] | None = None) -> CoverageReport:
        """Return which of the expected layers (default: those observed) were observed in full."""
        expected = sorted(set(self.layers if expected_layers is None else expected_layers))
        seen = {name: self.layers[name] for name in expected if name in self.layers}
        reference = reference_calls((s.calls for s in seen.values()), self.model_calls)
        partial = {n: s.calls for n, s in seen.items() if is_partial(s.calls, reference)}
        return CoverageReport(
            covered=tuple(n for n in seen if n not in partial),
            uncovered=tuple(n for n in expected if n not in seen),
            partial=partial,
            nonfinite=tuple(n for n, s in seen.items() if s.nonfinite_calls),
            changed=tuple(n for n in expected if n in self.changed_layers),
            reference_calls=reference,
        )

    def require_model(
        self,
        fingerprint: ModelFingerprint,
        what: str = "the calibration",
        remedy: str = "Use a calibration of this model",
    ) -> None:
        """Raise `CalibrationError`, naming the difference, if this is from another model.

        ``what`` and ``remedy`` are the first and the last words of the message.
        """
        difference = self.fingerprint.difference(fingerprint)
        if difference is not None:
            raise CalibrationError(f"{what} is from a different model: {difference}. {remedy}")

    def summary(self) -> dict[str, Any]:
        """Return the figures of a report as JSON values."""
        return {
            "model": self.fingerprint.digest,
            "tool_versions": list(self.tool_versions),
            "runs": [run.to_json() for run in self.runs],
            "model_calls": self.model_calls,
            "distinct_inputs": len(self.inputs),
            "rows_per_layer": self.rows_per_layer,
            "changed_layers": list(self.changed_layers),
            "coverage": self.coverage().to_json(),
            "layers": {name: _layer_summary(self.layers[name]) for name in sorted(self.layers)},
        }

    def _layer(self, name: str) -> LayerStatistics:
        if name not in self.layers:
            raise CalibrationError(
                f"{name} was not observed: the calibration has no such layer; calibrate again"
            )
        return self.layers[name]


def _layer_summary(layer: LayerStatistics) -> dict[str, Any]:
    return {
        "input_id": layer.input_id,
        "in_features": layer.in_features,
        "calls": layer.calls,
        "nonfinite_calls": layer.nonfinite_calls,
        "tokens": layer.tokens,
        "tokens_used": layer.tokens_used,
        "rows": layer.rows.shape[0],
        "hessian_tokens": layer.moments.tokens if layer.moments else 0,
        "amax": layer.amax,
        "amax_median": layer.percentile(50.0),
        "amax_by_branch": amax_by_branch(layer),
    }
