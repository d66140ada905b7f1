"""Which layers a calibration observed, and which must not get a static scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

# A compiled graph that lost its hooks shows a fifth of the calls; an interrupted run loses only
# one. A limit of one half separates the two cases.
_PARTIAL_BELOW = 0.5


@dataclass(frozen=True)
class CoverageReport:
    """How well a list of layers was observed. Every tuple is sorted by name.

    Attributes:
        covered: layers that were observed in full.
        uncovered: layers without any calls.
        partial: layers with fewer than half of ``reference_calls``, mapped to the calls seen.
        nonfinite: layers that received NaN or infinity; they are also in ``covered`` or
            ``partial``.
        changed: layers that are uncovered because their tensor was changed in place between two
            layers that seemed to share it. Another run covers them.
        reference_calls: calls that a layer of this model should have.
    """

    covered: tuple[str, ...]
    uncovered: tuple[str, ...]
    partial: Mapping[str, int]
    nonfinite: tuple[str, ...]
    changed: tuple[str, ...]
    reference_calls: int

    @property
    def complete(self) -> bool:
        """Whether every layer was observed in full and without NaN."""
        return not (self.uncovered or self.partial or self.nonfinite)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data for reports."""
        return {
            "covered": list(self.covered),
            "uncovered": list(self.uncovered),
            "partial": dict(self.partial),
            "nonfinite": list(self.nonfinite),
            "changed": list(self.changed),
            "reference_calls": self.reference_calls,
        }


def is_partial(calls: int, reference_calls: int) -> bool:
    """Return whether a layer has fewer than half of the reference calls."""
    return calls < _PARTIAL_BELOW * reference_calls


def reference_calls(calls: Iterable[int], model_calls: int) -> int:
    """Return the calls that a layer of this model should have.

    This is the larger of the median over the layers and the model calls announced to the
    collector. If most layers lost their hooks, the median alone would look normal.
    """
    seen = [count for count in calls if count > 0]
    return max(int(median(seen)) if seen else 0, model_calls)
