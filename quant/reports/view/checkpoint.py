"""The view of a model file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...checkpoint import CheckpointSummary
from ...checkpoint.layer_record import LayerRecord
from ..checkpoint import describe_summary, notes_on
from ..messages import messages_of
from .conversion import errors_by_rounding
from .layer_columns import LayerColumns
from .layer_view import LayerView, Tile, with_notes
from .measures import measures_with_values
from .tiles import bits_tile, error_tile, formats_tile, scales_tile, size_tile


def checkpoint_view(summary: CheckpointSummary, notes: Sequence[str] = ()) -> LayerView:
    """Return the view of a model file of any kind, with the record of how it was made if any."""
    layers, records = summary.layers, [la.record for la in summary.layers]
    values = _values(summary)
    return LayerView(
        kind="checkpoint",
        title=Path(summary.path).name,
        text=with_notes(notes, describe_summary(summary)),
        tiles=_tiles(summary),
        messages=messages_of((*notes, *notes_on(summary))),
        layers=LayerColumns(
            names=[la.name for la in layers],
            kinds=[la.kind for la in layers],
            shapes=[la.shape for la in layers],
            formats=[la.format for la in layers],
            reasons=[record.reason if record else "" for record in records],
            remarks=[record.remarks if record else "" for record in records],
            values=values,
        ),
        measures=measures_with_values(values),
        errors=errors_by_rounding(records),
    )


def _values(summary: CheckpointSummary) -> dict[str, list[float | None]]:
    none = LayerRecord()
    records = [la.record or none for la in summary.layers]
    return {
        "w4a4": [record.output_error_w4a4 for record in records],
        "w4a16": [record.output_error_w4a16 for record in records],
        "weight": [record.weight_error for record in records],
        "amax": [record.activation_amax for record in records],
        "spread": [record.activation_spread for record in records],
        "input_scale": [la.input_scale for la in summary.layers],
        "bytes": [float(la.bytes) for la in summary.layers],
        "calls": [float(record.calls) if record.calls else None for record in records],
    }


def _tiles(summary: CheckpointSummary) -> tuple[Tile, ...]:
    linears = [la for la in summary.layers if la.kind == "linear"]
    tiles = [
        size_tile(summary.bytes_before, summary.total_bytes),
        bits_tile((la.shape, la.bytes) for la in linears),
        formats_tile(summary.counts()),
    ]
    overall = summary.overall_error()
    if overall is not None:
        tiles.append(error_tile(overall))
    static = sum(la.input_scale is not None for la in summary.layers)
    dynamic = len(summary.dynamic_layers)
    return (*tiles, *([scales_tile(static, dynamic)] if static or dynamic else []))
