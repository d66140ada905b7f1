"""Plans, statistics, checkpoints and comparisons as text, for the command line and the nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..calibration import ENOUGH_TOKENS, CalibrationStatistics
from ..checkpoint import CheckpointComparison, CheckpointSummary, LayerComparison
from ..conversion.report import format_bytes, shorten, text_table
from ..difference import Difference
from ..planning import Plan, PlannedLayer
from ..sensitivity.artefact import CandidateErrors, Sensitivity

# More would push the table of layers out of sight.
_SHOWN_RUNS = 5
_SHOWN_REASONS = 32


def describe_summary(summary: CheckpointSummary) -> str:
    """Return what a model file holds: headline, notes, one line per layer."""
    formats = ", ".join(f"{count} {name}" for name, count in summary.counts().items())
    lines = [
        summary.path,
        f"model   {summary.architecture}",
        f"Linears {formats}",
        f"size    {format_bytes(summary.total_bytes)}",
        *(f"note: {note}" for note in summary.notes),
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


def describe_plan(plan: Plan, notes: tuple[str, ...] = ()) -> str:
    """Return a plan as text: headline, warnings, Linears by reason, one line per layer."""
    formats = ", ".join(f"{count} {name}" for name, count in plan.counts().items())
    lines = [
        f"model   {plan.architecture}",
        f"blocks  {', '.join(f'{n} {name}' for name, n in plan.blocks.items()) or 'none'}",
        f"recipe  {plan.recipe.name}",
        f"Linears {formats}",
        f"size    {format_bytes(plan.bytes_before)} -> {format_bytes(plan.bytes_after)}",
        *(f"note: {note}" for note in notes),
        *(f"warning: {warning}" for warning in plan.warnings),
    ]
    rows = [
        (
            la.name,
            "x".join(map(str, la.shape)),
            la.format,
            format_bytes(la.bytes_before),
            format_bytes(la.bytes_after),
            la.reason,
        )
        for la in plan.layers
    ]
    headings = ("layer", "shape", "format", "before", "after", "reason")
    table = text_table(headings, rows, left=("layer", "reason"))
    return "\n".join([*lines, *_linears_by_reason(plan), "", table])


def _linears_by_reason(plan: Plan) -> list[str]:
    """Say which rule put how many Linears into which format, the largest part of the model first.

    Recipes that name layers one by one have too many reasons for that; their layers follow anyway.
    """
    groups: dict[tuple[str, str], list[PlannedLayer]] = {}
    for layer in plan.layers:
        if layer.kind == "linear":
            groups.setdefault((layer.format, layer.reason), []).append(layer)
    if len(groups) > _SHOWN_REASONS:
        return []
    rows = [
        (
            fmt,
            str(len(layers)),
            format_bytes(sum(la.bytes_before for la in layers)),
            format_bytes(sum(la.bytes_after for la in layers)),
            reason,
        )
        for (fmt, reason), layers in sorted(
            groups.items(), key=lambda item: -sum(la.bytes_before for la in item[1])
        )
    ]
    headings = ("format", "Linears", "before", "after", "reason")
    return ["", text_table(headings, rows, left=("format", "reason"))]


def describe_statistics(statistics: CalibrationStatistics) -> str:
    """Return statistics as text: runs, coverage, one line per layer."""
    coverage = statistics.coverage()
    lines = [
        f"{len(statistics.runs)} runs, {statistics.model_calls} model calls, "
        f"{len(statistics.layers)} layers, {len(statistics.inputs)} distinct inputs",
    ]
    lines += _describe_moments(statistics)
    if coverage.partial:
        lines.append(f"observed in part: {shorten(coverage.partial)}")
    if coverage.nonfinite:
        lines.append(f"NaN or infinite inputs: {shorten(coverage.nonfinite)}")
    shown = statistics.runs[-_SHOWN_RUNS:]
    if len(shown) < len(statistics.runs):
        lines.append(f"the latest {len(shown)} runs:")
    for run in shown:
        started = f"{run.started[:16].replace('T', ' ')} UTC"
        lines.append(f"run {run.id[:8]} {started} {run.calls} calls: {shorten(run.prompts, 3)}")
    rows = [
        (
            name,
            str(la.calls),
            str(la.tokens),
            f"{la.percentile(50) or 0:.4g}",
            f"{la.percentile(99.9) or 0:.4g}",
            f"{la.amax or 0:.4g}",
        )
        for name, la in sorted(statistics.layers.items())
    ]
    table = text_table(("layer", "calls", "tokens", "median amax", "p99.9", "amax"), rows)
    return "\n".join([*lines, "", table])


def describe_sensitivity(sensitivity: Sensitivity) -> str:
    """Return sensitivities as text: what is unknown, then one line per layer, worst first."""
    first, *others = sensitivity.formats
    lines = [
        f"{len(sensitivity.layers)} layers, rounding {sensitivity.rounding}",
        f"weight, W4A16 and W4A4: relative errors in {first}, of the weight and of the layer's "
        "output with 16-bit and with quantized inputs",
    ]
    if others:
        lines.append(f"{', '.join(others)}: error of the output as that format runs natively")
    if sensitivity.has_latents:
        lines.append(f"latent: {_which_latent(sensitivity)}")
    for name in sensitivity.formats:
        unknown = sensitivity.unknown(name)
        if unknown:
            lines.append(f"unknown in {name}, so not known to be safe: {', '.join(unknown)}")
    rows = []
    for name in sorted(sensitivity.layers, key=lambda name: _costliest(sensitivity, name)):
        layer, candidates = sensitivity.layers[name], sensitivity.candidates(name)
        errors = candidates.get(first)
        row = [name, "x".join(map(str, layer.shape))]
        row += [_error(errors, part) for part in ("weight", "w4a16", "w4a4")]
        row += [_error(candidates.get(other), "w4a4") for other in others]
        row += [_error(errors, "latent")] if sensitivity.has_latents else []
        rows.append(row)
    headings = ["layer", "shape", "weight", "W4A16", "W4A4", *others]
    headings += ["latent"] if sensitivity.has_latents else []
    return "\n".join([*lines, "", text_table(headings, rows)])


def _which_latent(sensitivity: Sensitivity) -> str:
    if sensitivity.is_of_samplings:
        return "how far the sampled latent moves with only that layer quantized in every step"
    sigmas = ", ".join(f"{sigma:.4g}" for sigma in _sigmas(sensitivity))
    return f"how far the denoised latent moves with only that layer quantized, at sigma {sigmas}"


def _sigmas(sensitivity: Sensitivity) -> list[float]:
    candidates = (c for la in sensitivity.layers.values() for c in la.candidates.values())
    return sorted({sigma for c in candidates for sigma in c.latent_by_sigma}, reverse=True)


def _costliest(sensitivity: Sensitivity, name: str) -> tuple[int, float]:
    """Order layers by what the first format they can take costs: unknown first, then the worst."""
    candidates = sensitivity.candidates(name)
    rank, first = next((n, f) for n, f in enumerate(sensitivity.formats) if f in candidates)
    cost = sensitivity.cost(name, first)
    return rank, -math.inf if cost is None else -cost


def _error(errors: CandidateErrors | None, part: str) -> str:
    if errors is None:
        return "-"
    value = getattr(errors, part)
    return "unknown" if value is None else f"{value:.3%}"


def _describe_moments(statistics: CalibrationStatistics) -> list[str]:
    """Say how far the second moments are, if any were gathered."""
    inputs = statistics.inputs.values()
    per_channel = [la.moments.tokens / la.in_features for la in inputs if la.moments]
    if not per_channel:
        return []
    enough = sum(tokens >= ENOUGH_TOKENS for tokens in per_channel)
    return [
        f"Hessians of {len(per_channel)} of {len(inputs)} inputs, {enough} of them from at least "
        f"{ENOUGH_TOKENS} tokens a channel; more prompts add to them, except outside of blocks"
        if enough < len(inputs)
        else f"Hessians of all {enough} inputs from at least {ENOUGH_TOKENS} tokens a channel"
    ]


def describe_comparison(comparison: CheckpointComparison) -> str:
    """Return two checkpoints side by side: totals, what is missing, layers by error."""
    lines = [
        f"A       {comparison.a}",
        f"B       {comparison.b}",
        f"size    {format_bytes(comparison.bytes_a)} -> {format_bytes(comparison.bytes_b)} "
        f"({comparison.bytes_b / max(1, comparison.bytes_a):.0%})",
    ]
    for title, names in (
        ("only in A", comparison.only_a),
        ("only in B", comparison.only_b),
        ("not compared, of a format this tool cannot decode", comparison.not_compared),
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
        f"relative error of all weights and biases {comparison.relative_error:.3%}"
    )
    return "\n".join([*lines, "", text_table(headings, rows), "", totals])


def _worst_first(layer: LayerComparison) -> tuple[bool, float]:
    return math.isfinite(layer.relative_error), -layer.relative_error


def describe_samples(
    title: str,
    items: Sequence[Difference],
    *,
    peak: float | None = None,
    ssim: Sequence[float] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return the figures of a compared batch: all together, then item by item.

    Args:
        title: what was compared.
        items: one difference per item.
        peak: the largest possible value, for PSNR; None where there is none.
        ssim: the structural similarity of each item, if it was measured.
        notes: what the reader should know besides.
    """
    whole = sum(items, Difference())
    columns = [
        ("relative error", "error", "{:.3%}", [d.relative_error for d in (whole, *items)]),
        ("mean squared error", "mse", "{:.4g}", [d.mean_squared_error for d in (whole, *items)]),
        ("largest difference", "largest", "{:.4g}", [d.largest for d in (whole, *items)]),
    ]
    if peak is not None:
        columns.append(("PSNR", "PSNR", "{:.2f} dB", [d.psnr(peak) for d in (whole, *items)]))
    if ssim:
        columns.append(("SSIM", "SSIM", "{:.4f}", [sum(ssim) / len(ssim), *ssim]))
    lines = [title, *(f"{name:<18} {form.format(v[0])}" for name, _, form, v in columns)]
    if whole.is_finite and math.isinf(whole.relative_error):
        lines.append("note: the reference is zero, so no error is relative to it")
    if not whole.is_finite:
        lines.append("warning: there are NaN or infinite values")
    lines += [f"note: {note}" for note in notes]
    if len(items) == 1:
        return "\n".join(lines)
    rows = (
        [str(i), *(form.format(v[i + 1]) for _, _, form, v in columns)] for i in range(len(items))
    )
    table = text_table(["item", *(short for _, short, *_ in columns)], rows, left=())
    return "\n".join([*lines, "", table])
