"""Report the comparison of two checkpoints as text."""

from __future__ import annotations

import math

from ..checkpoint import CheckpointComparison, LayerComparison
from ..text import format_bytes, text_table


def describe_comparison(comparison: CheckpointComparison) -> str:
    """Return a comparison as text: sizes, missing layers, layers by error, totals."""
    lines = [
        f"A       {comparison.a}",
        f"B       {comparison.b}",
        f"size    {format_bytes(comparison.bytes_a)} -> {format_bytes(comparison.bytes_b)} "
        f"({comparison.bytes_b / max(1, comparison.bytes_a):.0%})",
    ]
    for title, names in (
        ("only in A", comparison.only_a),
        ("only in B", comparison.only_b),
        ("not compared, in formats that this tool cannot decode", comparison.not_compared),
    ):
        if names:
            lines.append(f"{title}: {', '.join(names)}")
    rows = [
        (
            la.name,
            "x".join(map(str, la.shape)),
            la.format_a,
            la.format_b,
            f"{la.relative_error:.3%}",
            "-" if la.bias_error is None else f"{la.bias_error:.3%}",
            format_bytes(la.bytes_a),
            format_bytes(la.bytes_b),
        )
        for la in sorted(comparison.layers, key=_worst_first)
    ]
    headings = ("layer", "shape", "format A", "format B", "error", "bias", "size A", "size B")
    differing = sum(bool(la.relative_error or la.bias_error) for la in comparison.layers)
    totals = (
        f"{len(comparison.layers)} layers compared, {differing} differ; "
        f"relative error of all weights and biases: {comparison.relative_error:.3%}"
    )
    return "\n".join([*lines, "", text_table(headings, rows), "", totals])


def _worst_first(layer: LayerComparison) -> tuple[bool, float]:
    return math.isfinite(layer.relative_error), -layer.relative_error
