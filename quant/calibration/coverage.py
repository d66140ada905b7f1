"""Which layers were really observed, and which must not get a static scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

# A compiled graph that lost its hooks shows a fifth of the calls; an interrupted run loses one.
# Half tells them apart.
_PARTIAL_BELOW = 0.5


@dataclass(frozen=True)
class CoverageReport:
    """How well a list of layers was observed. Every tuple is sorted by name.

    ``covered``: seen in full. ``uncovered``: no calls at all. ``partial``: fewer than half of
    ``reference_calls``, mapped to the calls seen. ``nonfinite``: seen, but with NaN or infinity
    (these are in ``covered`` or ``partial`` too). ``changed``: uncovered because the tensor was
    changed in place between two layers that seemed to share it; another run covers them.
    """

    covered: tuple[str, ...]
    uncovered: tuple[str, ...]
    partial: Mapping[str, int]
    nonfinite: tuple[str, ...]
    changed: tuple[str, ...]
    reference_calls: int

    @property
    def complete(self) -> bool:
        """Whether every layer was seen in full and without NaN."""
        return not (self.uncovered or self.partial or self.nonfinite)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-serialisable form for reports."""
        return {
            "covered": list(self.covered),
            "uncovered": list(self.uncovered),
            "partial": dict(self.partial),
            "nonfinite": list(self.nonfinite),
            "changed": list(self.changed),
            "reference_calls": self.reference_calls,
        }


def is_partial(calls: int, reference_calls: int) -> bool:
    """Whether a layer was called suspiciously rarely: below half of the reference."""
    return calls < _PARTIAL_BELOW * reference_calls


def reference_calls(calls: Iterable[int], model_calls: int) -> int:
    """Calls a layer of this model should have.

    The larger of the median over the layers and the model calls announced to the collector: when
    most layers lost their hooks the median alone would call that normal.
    """
    seen = [count for count in calls if count > 0]
    return max(int(median(seen)) if seen else 0, model_calls)
