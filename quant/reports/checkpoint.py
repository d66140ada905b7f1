"""Report the content of a model file as text."""

from __future__ import annotations

from ..checkpoint import CheckpointSummary, LayerSummary
from ..checkpoint.layer_record import LayerRecord
from ..text import format_bytes, format_percent, text_table
from .conversion import describe_overall
from .messages import messages_of


def describe_summary(summary: CheckpointSummary) -> str:
    """Return the content of a model file as text: headline, notes, one line per layer."""
    formats = ", ".join(f"{count} {name}" for name, count in summary.counts().items())
    lines = [
        summary.path,
        f"model   {summary.architecture}",
        f"layers  {formats}",
        f"size    {format_bytes(summary.total_bytes)}",
        f"digests {'yes: verify finds any changed bit' if summary.has_digests else 'none'}",
        *map(str, messages_of(notes_on(summary))),
    ]
    lines += _made_by(summary)
    recorded = any(la.record and la.record.weight_error is not None for la in summary.layers)
    headings = ["layer", "kind", "shape", "format", "size", "input_scale"]
    headings += ["rounding", "weight err", "W4A16 err", "W4A4 err", "amax"] if recorded else []
    rows = (_cells(la, with_record=recorded) for la in summary.layers)
    return "\n".join([*lines, "", text_table(headings, rows)])


def notes_on(summary: CheckpointSummary) -> tuple[str, ...]:
    """Return the notes on a file, with the reason if it cannot be quantized."""
    if not summary.refusal:
        return summary.notes
    return (*summary.notes, f"warning: it cannot be quantized: {summary.refusal}")


def _made_by(summary: CheckpointSummary) -> list[str]:
    """Return lines on how the file was made, if its header tells."""
    made = summary.provenance
    if not made:
        return []
    name = made.get("recipe", {}).get("name", "custom")
    lines = [f"made by {made.get('tool')} from {made.get('source')} with recipe {name}"]
    overall = summary.overall_error()
    return [*lines, *([f"error   {describe_overall(overall)}"] if overall else [])]


def _cells(layer: LayerSummary, *, with_record: bool) -> list[str]:
    cells = [
        layer.name,
        layer.kind,
        "x".join(map(str, layer.shape)),
        layer.format,
        format_bytes(layer.bytes),
        "-" if layer.input_scale is None else f"{layer.input_scale:.4g}",
    ]
    record = layer.record or LayerRecord()
    amax = record.activation_amax
    return (
        [
            *cells,
            record.rounding or "-",
            format_percent(record.weight_error),
            format_percent(record.output_error_w4a16),
            format_percent(record.output_error_w4a4),
            "-" if amax is None else f"{amax:.4g}",
        ]
        if with_record
        else cells
    )
