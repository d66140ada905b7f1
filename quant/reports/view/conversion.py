"""The view of a conversion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...calibration import CalibrationStatistics
from ...checkpoint.layer_record import Measured
from ...conversion.report import ConversionReport, LayerReport
from ...formats import get_format
from ..conversion import describe_conversion
from ..messages import messages_of
from .calibration import observed_values
from .curves import inputs_of
from .layer_columns import LayerColumns
from .layer_view import LayerView, Tile, with_notes
from .measures import measures_with_values
from .numbers import rounded_all
from .tiles import bits_tile, coverage_tile, error_tile, formats_tile, scales_tile, size_tile


def conversion_view(
    report: ConversionReport,
    statistics: CalibrationStatistics | None = None,
    notes: Sequence[str] = (),
) -> LayerView:
    """Return the view of a conversion. The calibration adds curves, spread and coverage."""
    values = _values(report.layers)
    names = [la.name for la in report.layers]
    if statistics is not None:
        coverage = observed_values(statistics, names)["coverage"]
        values["coverage"] = [
            share if la.kind == "linear" else None
            for la, share in zip(report.layers, coverage, strict=True)
        ]
    return LayerView(
        kind="conversion",
        title=report.target or f"{Path(report.source).name}, quantized in memory",
        text=with_notes(notes, describe_conversion(report, every_layer=False)),
        tiles=_tiles(report),
        messages=messages_of((*notes, *report.notes, *report.advice), report.warnings),
        layers=LayerColumns(
            names=names,
            kinds=[la.kind for la in report.layers],
            shapes=[la.shape for la in report.layers],
            formats=[la.format for la in report.layers],
            reasons=[la.reason for la in report.layers],
            remarks=[la.further_remarks for la in report.layers],
            values=values,
        ),
        measures=measures_with_values(values),
        errors=errors_by_rounding(report.layers),
        inputs=inputs_of(statistics, names) if statistics is not None else None,
    )


def _values(layers: Sequence[LayerReport]) -> dict[str, list[float | None]]:
    return {
        "w4a4": [la.output_error_w4a4 for la in layers],
        "w4a16": [la.output_error_w4a16 for la in layers],
        "weight": [la.weight_error for la in layers],
        "amax": [la.activation_amax for la in layers],
        "spread": [la.activation_spread for la in layers],
        "input_scale": [la.input_scale for la in layers],
        "bytes": [float(la.bytes_after) for la in layers],
        "calls": [float(la.calls) if la.calls else None for la in layers],
    }


def errors_by_rounding(
    layers: Sequence[Measured | None],
) -> dict[str, dict[str, list[int | float | None]]] | None:
    """Return the ``errors`` part of a view: as stored and by the plain max rule.

    None if the max rule's errors are not known.
    """
    if not any(la and la.max_rule_weight_error is not None for la in layers):
        return None
    columns = {
        "as stored": {
            "weight": [la.weight_error if la else None for la in layers],
            "w4a16": [la.output_error_w4a16 if la else None for la in layers],
        },
        "plain max rule": {
            "weight": [la.max_rule_weight_error if la else None for la in layers],
            "w4a16": [la.max_rule_output_error if la else None for la in layers],
        },
    }
    return {
        rounding: {
            error: rounded_all(column)
            for error, column in errors.items()
            if any(value is not None for value in column)
        }
        for rounding, errors in columns.items()
    }


def _tiles(report: ConversionReport) -> tuple[Tile, ...]:
    linears = [la for la in report.layers if la.kind == "linear"]
    tiles = [
        size_tile(report.bytes_before, report.bytes_after),
        bits_tile((la.shape, la.bytes_after) for la in linears),
        formats_tile(report.counts()),
    ]
    overall = report.overall_error()
    if overall is not None:
        tiles.append(error_tile(overall))
    quantized = [la for la in linears if get_format(la.format).is_quantized]
    if report.calibration != "none":
        tiles.append(coverage_tile(sum(la.calls > 0 for la in quantized), len(quantized)))
    static = sum(la.input_scale is not None for la in report.layers)
    if static or report.dynamic_layers:
        tiles.append(scales_tile(static, len(report.dynamic_layers)))
    return tuple(tiles)
