"""What the user sees of a conversion: one record per layer, in text, JSON and HTML."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..formats import get_format
from ..sources.base import AppliedLora


@dataclass(frozen=True)
class LayerReport:
    """One layer after encoding.

    Errors are relative Frobenius norms: of the weight, and of the layer's output on sampled
    calibration inputs with 16-bit (``output_error_w4a16``) and with quantized activations
    (``output_error_w4a4``), and the latter had the runtime chosen the activation scale
    (``output_error_runtime_scale``). None: not measured. ``rounding`` is the one really used,
    ``rounding_reason`` and ``bias`` say what second-order rounding and the correction of the bias
    gained or why they were not used; ``bias_digest`` is of the corrected bias. ``runtime_scale``
    is what ComfyUI scales the layer's activations by when ``input_scale`` is None; empty where it
    does not quantize them.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    format: str
    reason: str
    bytes_before: int
    bytes_after: int
    rounding: str = ""
    rounding_reason: str = ""
    bias: str = ""
    bias_digest: str = ""
    weight_error: float | None = None
    output_error_w4a16: float | None = None
    output_error_w4a4: float | None = None
    output_error_runtime_scale: float | None = None
    input_scale: float | None = None
    input_scale_reason: str = ""
    runtime_scale: str = ""
    calls: int = 0
    tokens: int = 0
    activation_amax: float | None = None

    @property
    def runtime_scale_is_dynamic(self) -> bool:
        """Whether ComfyUI would measure the activations itself without a static scale."""
        return get_format(self.format).runtime_scale == "dynamic"

    @property
    def remarks(self) -> str:
        """Why it is as it is, in words: format, rounding, bias, activation scale."""
        parts = [self.reason, self.rounding_reason, self.input_scale_reason]
        parts += [f"bias {self.bias}"] if self.bias else []
        return "; ".join(part for part in parts if part)


@dataclass(frozen=True)
class ConversionReport:
    """What was done to a model, layer by layer.

    ``notes`` say how the source was read, ``warnings`` what a user may have to do about.
    """

    source: str
    target: str
    recipe: str
    architecture: str
    rounding: str
    layers: tuple[LayerReport, ...]
    warnings: tuple[str, ...] = ()
    calibration: str = "none"
    seconds: float = 0.0
    loras: tuple[AppliedLora, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def bytes_before(self) -> int:
        """Bytes of all tensors in the source."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Bytes of all tensors written."""
        return sum(layer.bytes_after for layer in self.layers)

    @property
    def dynamic_layers(self) -> tuple[str, ...]:
        """Layers that could have a static input_scale and have none."""
        return tuple(
            la.name
            for la in self.layers
            if la.runtime_scale
            and la.input_scale is None
            and get_format(la.format).activation_divisor is not None
        )

    def counts(self) -> dict[str, int]:
        """Return the number of Linears per format, most first."""
        return dict(Counter(la.format for la in self.layers if la.kind == "linear").most_common())

    def roundings(self) -> dict[str, int]:
        """Return the number of quantized layers per rounding that was really used, most first."""
        return dict(Counter(la.rounding for la in self.layers if la.rounding).most_common())

    @property
    def corrected_biases(self) -> int:
        """Layers whose bias was corrected."""
        return sum(bool(la.bias_digest) for la in self.layers)

    def static_scale_verdict(self) -> str:
        """Say what static activation scales bring over the runtime's own; empty: not measured.

        By the W4A4 output errors of the layers that have one: how many are better or worse by
        more than 1%, and by how much at the worst.
        """
        ratios = [
            la.output_error_w4a4 / la.output_error_runtime_scale
            for la in self.layers
            if la.input_scale is not None
            and la.runtime_scale_is_dynamic
            and la.output_error_w4a4 is not None
            and la.output_error_runtime_scale
        ]
        if not ratios:
            return ""
        better = sum(ratio < 1 - _NOTABLE for ratio in ratios)
        worse = sum(ratio > 1 + _NOTABLE for ratio in ratios)
        return (
            f"static scales against the runtime's own: {better} layers better by more than "
            f"{_NOTABLE:.0%}, {worse} worse, {len(ratios) - better - worse} where they bring "
            f"nothing in accuracy (error {min(ratios) - 1:+.2%} to {max(ratios) - 1:+.2%})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data."""
        return {
            **asdict(self),
            "roundings": self.roundings(),
            "static_scales": self.static_scale_verdict(),
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "formats": self.counts(),
            "dynamic_layers": list(self.dynamic_layers),
        }

    def headline(self) -> str:
        """Return the outcome in a few lines."""
        formats = ", ".join(f"{count} {name}" for name, count in self.counts().items())
        static = sum(la.input_scale is not None for la in self.layers)
        lines = [
            f"{self.source} -> {self.target or 'MODEL in memory'}",
            f"model       {self.architecture}",
            *([f"LoRAs       {', '.join(map(str, self.loras))}"] if self.loras else []),
            f"recipe      {self.recipe}, rounding {self.rounding}",
            *self._rounding_lines(),
            f"Linears     {formats}",
            f"size        {format_bytes(self.bytes_before)} -> {format_bytes(self.bytes_after)} "
            f"({self.bytes_after / max(1, self.bytes_before):.0%})",
            f"calibration {self.calibration}",
            f"input_scale {static} static, {len(self.dynamic_layers)} left to the runtime",
            *([f"            {verdict}"] if (verdict := self.static_scale_verdict()) else []),
        ]
        if self.seconds:
            rate = self.bytes_before / 1e6 / self.seconds
            lines.append(f"time        {self.seconds:.1f} s, {rate:.0f} MB/s of source")
        if static and self.dynamic_layers:
            lines.append(f"without a static scale: {shorten(self.dynamic_layers)}")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def _rounding_lines(self) -> list[str]:
        """Return which roundings the layers got, where that is not simply the one asked for."""
        used = self.roundings()
        if set(used) <= {self.rounding} and not self.corrected_biases:
            return []
        counts = ", ".join(f"{count} {name}" for name, count in used.items())
        return [f"            used for layers: {counts}; {self.corrected_biases} biases corrected"]

    def to_text(self, *, every_layer: bool = True) -> str:
        """Return the headline and a table of the quantized (or all) layers."""
        rows = [la for la in self.layers if every_layer or la.weight_error is not None]
        return f"{self.headline()}\n\n{text_table(_HEADINGS, map(_cells, rows))}"

    def to_html(self) -> str:
        """Return a self-contained page."""
        title = html.escape(f"NVFP4 Foundry: {self.target or self.source}")
        head = "".join(f"<th>{html.escape(h)}</th>" for h in _HEADINGS)
        body = "\n".join(
            f'<tr class="{html.escape(layer.format)}" title="{html.escape(layer.remarks)}">'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(layer))
            + "</tr>"
            for layer in self.layers
        )
        return _PAGE.format(
            title=title, headline=html.escape(self.headline()), head=head, body=body
        )

    def dumps(self) -> str:
        """Return `to_json` as indented text."""
        return json.dumps(self.to_json(), indent=1)


# Share of an error below which a difference is not worth a word.
_NOTABLE = 0.01

_HEADINGS = (
    "layer", "shape", "format", "rounding", "size", "weight err", "W4A16 err", "W4A4 err",
    "input_scale", "amax", "calls",
)  # fmt: skip


def _cells(layer: LayerReport) -> tuple[str, ...]:
    return (
        layer.name,
        "x".join(map(str, layer.shape)),
        layer.format,
        (layer.rounding or "-") + ("+bias" if layer.bias_digest else ""),
        format_bytes(layer.bytes_after),
        _percent(layer.weight_error),
        _percent(layer.output_error_w4a16),
        _percent(layer.output_error_w4a4),
        f"{layer.input_scale:.4g}" if layer.input_scale is not None else layer.runtime_scale or "-",
        "-" if layer.activation_amax is None else f"{layer.activation_amax:.4g}",
        str(layer.calls or "-"),
    )


def text_table(
    headings: Sequence[str], rows: Iterable[Iterable[str]], left: Iterable[str] | None = None
) -> str:
    """Return columns aligned by spaces, to the right but for those in ``left`` (the first)."""
    table = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    to_left = set(headings[:1] if left is None else left)
    flush_left = [heading in to_left for heading in headings]
    lines = []
    for row in table:
        cells = zip(row, widths, flush_left, strict=True)
        line = "  ".join(c.ljust(w) if is_left else c.rjust(w) for c, w, is_left in cells)
        lines.append(line.rstrip())
    return "\n".join([lines[0], "-" * sum(widths, 2 * len(widths) - 2), *lines[1:]])


def format_bytes(count: float) -> str:
    """Return a size in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def shorten(names: Iterable[str], limit: int = 6) -> str:
    """Return the first names and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; font: 14px/1.45 system-ui, sans-serif; }}
body {{ max-width: 85rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ padding: 1rem; border: 1px solid #8886; border-radius: 6px; white-space: pre-wrap; }}
td {{ white-space: nowrap; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .6rem; border-bottom: 1px solid #8883; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
th {{ position: sticky; top: 0; background: Canvas; }}
tr.keep td, tr.bf16 td, tr.fp16 td, tr.fp32 td {{ opacity: .55; }}
</style></head><body>
<h1>{title}</h1>
<pre>{headline}</pre>
<p>Hover a row for why it got its format, rounding and scale.
Errors are relative to the 16-bit layer.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></body></html>
"""
