"""Report the content of a model file as text."""

from __future__ import annotations

from ..checkpoint import CheckpointSummary
from ..text import format_bytes, text_table
from .messages import messages_of


def describe_summary(summary: CheckpointSummary) -> str:
    """Return the content of a model file as text: headline, notes, one line per layer."""
    formats = ", ".join(f"{count} {name}" for name, count in summary.counts().items())
    lines = [
        summary.path,
        f"model   {summary.architecture}",
        f"layers  {formats}",
        f"size    {format_bytes(summary.total_bytes)}",
        *map(str, messages_of(summary.notes)),
    ]
    if summary.provenance:
        lines.append(
            f"made by {summary.provenance.get('tool')} from {summary.provenance.get('source')} "
            f"with recipe {summary.provenance.get('recipe', {}).get('name', 'custom')}"
        )
    rows = [
        (
            la.name,
            la.kind,
            "x".join(map(str, la.shape)),
            la.format,
            format_bytes(la.bytes),
            "-" if la.input_scale is None else f"{la.input_scale:.4g}",
        )
        for la in summary.layers
    ]
    table = text_table(("layer", "kind", "shape", "format", "size", "input_scale"), rows)
    return "\n".join([*lines, "", table])
