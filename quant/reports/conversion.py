"""Report a conversion as text: a headline and a table of the layers."""

from __future__ import annotations

from ..checkpoint.layer_record import OverallError
from ..conversion.report import ConversionReport, LayerReport
from ..text import format_bytes, format_percent, shorten, text_table
from .messages import messages_of

HEADINGS = (
    "layer", "shape", "format", "rounding", "size", "weight err", "W4A16 err", "W4A4 err",
    "input_scale", "amax", "calls",
)  # fmt: skip


def conversion_headline(report: ConversionReport) -> str:
    """Return the result of a conversion in a few lines."""
    formats = ", ".join(f"{count} {name}" for name, count in report.counts().items())
    static = sum(la.input_scale is not None for la in report.layers)
    overall = report.overall_error()
    lines = [
        f"{report.source} -> {report.target or 'MODEL in memory'}",
        f"model       {report.architecture}",
        *([f"LoRAs       {', '.join(map(str, report.loras))}"] if report.loras else []),
        f"recipe      {report.recipe}, rounding {report.rounding}",
        *_rounding_lines(report),
        f"layers      {formats}",
        f"size        {format_bytes(report.bytes_before)} -> {format_bytes(report.bytes_after)} "
        f"({report.bytes_after / max(1, report.bytes_before):.0%})",
        *([f"error       {describe_overall(overall)}"] if overall else []),
        f"calibration {report.calibration}",
        f"input_scale {static} static, {len(report.dynamic_layers)} left to the runtime",
        *([f"            {verdict}"] if (verdict := report.static_scale_verdict()) else []),
    ]
    if report.seconds:
        rate = report.bytes_before / 1e6 / report.seconds
        lines.append(f"time        {report.seconds:.1f} s, {rate:.3g} MB/s of source")
    if static and report.dynamic_layers:
        lines.append(f"without a static scale: {shorten(report.dynamic_layers)}")
    lines += map(str, messages_of((*report.notes, *report.advice), report.warnings))
    return "\n".join(lines)


def describe_conversion(report: ConversionReport, *, every_layer: bool = True) -> str:
    """Return the headline and a table of all layers, or of the quantized ones only."""
    rows = [la for la in report.layers if every_layer or la.weight_error is not None]
    return f"{conversion_headline(report)}\n\n{text_table(HEADINGS, map(cells_of, rows))}"


def cells_of(layer: LayerReport) -> tuple[str, ...]:
    """Return a layer's row of the table, one cell per heading."""
    return (
        layer.name,
        "x".join(map(str, layer.shape)),
        layer.format,
        (layer.rounding or "-") + ("+bias" if layer.bias_digest else ""),
        format_bytes(layer.bytes_after),
        format_percent(layer.weight_error),
        format_percent(layer.output_error_w4a16),
        format_percent(layer.output_error_w4a4),
        f"{layer.input_scale:.4g}" if layer.input_scale is not None else layer.runtime_scale or "-",
        "-" if layer.activation_amax is None else f"{layer.activation_amax:.4g}",
        str(layer.calls or "-"),
    )


def describe_overall(overall: OverallError) -> str:
    """Return the error of all layers together, beside the plain max rule's."""
    return f"{overall.error:.2%} ({overall.what}), plain max rule {overall.max_rule:.2%}"


def _rounding_lines(report: ConversionReport) -> list[str]:
    """Return a line on the roundings used, if they are not simply the requested one."""
    used = report.roundings()
    if set(used) <= {report.rounding} and not report.corrected_biases:
        return []
    counts = ", ".join(f"{count} {name}" for name, count in used.items())
    return [f"            layers by rounding: {counts}; {report.corrected_biases} biases corrected"]
