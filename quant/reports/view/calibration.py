"""The view of a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from ...calibration import CalibrationStatistics
from ...calibration.coverage import is_partial
from ..calibration import describe_statistics, statistics_messages
from ..messages import messages_of
from .curves import inputs_of
from .layer_columns import LayerColumns
from .layer_view import LayerView, Tile, with_notes
from .measures import measures_with_values
from .tiles import coverage_tile


def calibration_view(statistics: CalibrationStatistics, notes: Sequence[str] = ()) -> LayerView:
    """Return the view of a calibration: all 2-D weights of the model, observed or not."""
    shapes = statistics.fingerprint.shapes
    names = [*shapes, *(name for name in statistics.layers if name not in shapes)]
    values = observed_values(statistics, names)
    coverage = statistics.coverage()
    return LayerView(
        kind="calibration",
        title=f"Calibration of {len(statistics.layers)} layers",
        text=with_notes(notes, describe_statistics(statistics)),
        tiles=(
            Tile("runs", str(len(statistics.runs)), _prompts(statistics)),
            Tile("model calls", str(statistics.model_calls)),
            coverage_tile(len(coverage.covered), len(statistics.layers)),
            Tile("distinct inputs", str(len(statistics.inputs))),
        ),
        messages=(*messages_of(notes), *statistics_messages(statistics)),
        layers=LayerColumns(
            names=names,
            kinds=["linear"] * len(names),
            shapes=[_shape(statistics, name) for name in names],
            reasons=_reasons(statistics, names),
            values=values,
        ),
        measures=measures_with_values(values, ("amax", "spread", "coverage"), formats=False),
        inputs=inputs_of(statistics, names),
    )


def _prompts(statistics: CalibrationStatistics) -> str:
    """Return how many prompts were sampled; empty if none are recorded, as in a log."""
    prompts = len({prompt for run in statistics.runs for prompt in run.prompts})
    return f"{prompts} different prompts" if prompts else ""


def observed_values(
    statistics: CalibrationStatistics, names: Sequence[str]
) -> dict[str, list[float | None]]:
    """Return amax, spread, coverage and calls of layers; None for those not observed."""
    reference = statistics.coverage().reference_calls
    found: dict[str, tuple[float | None, ...]] = {}  # layers of one input share their values
    columns: dict[str, list[float | None]] = {"amax": [], "spread": [], "coverage": [], "calls": []}
    for name in names:
        layer = statistics.layers.get(name)
        if layer is None:
            row: tuple[float | None, ...] = (None, None, 0.0, None)
        elif layer.input_id in found:
            row = found[layer.input_id]
        else:
            share = min(1.0, layer.calls / reference) if reference else None
            ratio = layer.spread if layer.amax is not None else None
            ratio = ratio if ratio is not None and isfinite(ratio) else None
            row = found[layer.input_id] = (layer.amax, ratio, share, float(layer.calls))
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    return columns


def _shape(statistics: CalibrationStatistics, name: str) -> tuple[int, ...]:
    """Return the shape of a weight; a layer that the fingerprint lacks has one row."""
    shape = statistics.fingerprint.shapes.get(name)
    return tuple(shape) if shape else (1, statistics.layers[name].in_features)


def _reasons(statistics: CalibrationStatistics, names: Sequence[str]) -> list[str]:
    reference = statistics.coverage().reference_calls
    reasons = []
    for name in names:
        layer = statistics.layers.get(name)
        if layer is None:
            changed = name in statistics.changed_layers
            reasons.append("its tensor was changed in place" if changed else "never observed")
        elif is_partial(layer.calls, reference):
            reasons.append(f"observed in part: {layer.calls} of {reference} calls")
        elif layer.nonfinite_calls:
            reasons.append(f"NaN or infinite inputs in {layer.nonfinite_calls} calls")
        else:
            reasons.append("")
    return reasons
