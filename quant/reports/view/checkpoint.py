"""The view of a model file."""

from __future__ import annotations

from collections.abc import Sequence

from ...checkpoint import CheckpointSummary
from ..checkpoint import describe_summary
from ..messages import messages_of
from .layer_columns import LayerColumns
from .layer_view import LayerView, with_notes
from .measures import measures_with_values
from .tiles import bits_tile, formats_tile, size_tile


def checkpoint_view(summary: CheckpointSummary, notes: Sequence[str] = ()) -> LayerView:
    """Return the view of a model file of any kind, with the record of how it was made if any."""
    layers = summary.layers
    values: dict[str, list[float | None]] = {
        "input_scale": [la.input_scale for la in layers],
        "bytes": [float(la.bytes) for la in layers],
    }
    linears = [la for la in layers if la.kind == "linear"]
    return LayerView(
        kind="checkpoint",
        title=summary.path,
        text=with_notes(notes, describe_summary(summary)),
        tiles=(
            size_tile(None, summary.total_bytes),
            bits_tile((la.shape, la.bytes) for la in linears),
            formats_tile(summary.counts()),
        ),
        messages=messages_of((*notes, *summary.notes)),
        layers=LayerColumns(
            names=[la.name for la in layers],
            kinds=[la.kind for la in layers],
            shapes=[la.shape for la in layers],
            formats=[la.format for la in layers],
            values=values,
        ),
        measures=measures_with_values(values),
    )
