"""Report the changes to a checkpoint's input scales as text."""

from __future__ import annotations

from ..checkpoint import RescaledLayer, RescaleReport
from ..text import text_table


def describe_rescale(report: RescaleReport) -> str:
    """Return the totals, then one line per layer, largest changes first."""
    layers = report.layers
    static = sum(la.after is not None for la in layers)
    added = sum(la.before is None and la.after is not None for la in layers)
    removed = sum(la.before is not None and la.after is None for la in layers)
    same = sum(la.before == la.after for la in layers)
    lines = [
        report.source,
        f"{len(layers)} layers take a static scale: {static} have one now, "
        f"{len(layers) - static} are left to the runtime",
        f"{added} added, {removed} removed, {len(layers) - added - removed - same} changed, "
        f"{same} unchanged",
        *report.notes,
    ]
    rows = [
        (la.name, la.format, _scale(la.before), _scale(la.after), _change(la), la.reason)
        for la in sorted(layers, key=_most_changed_first)
    ]
    headings = ("layer", "format", "before", "after", "change", "reason")
    return "\n".join([*lines, "", text_table(headings, rows, left=("layer", "reason"))])


def _scale(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _change(layer: RescaledLayer) -> str:
    return "-" if layer.change is None else f"x {layer.change:.3g}"


def _most_changed_first(layer: RescaledLayer) -> tuple[bool, float]:
    """Return a sort key: added and removed scales first, then the largest factors."""
    if layer.change is None:
        return layer.before == layer.after, 0.0
    return True, -max(layer.change, 1 / layer.change) if layer.change else 0.0
