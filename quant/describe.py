"""Plans, statistics and checkpoints as plain text, for the command line and the nodes alike."""

from __future__ import annotations

from .calibration import CalibrationStatistics
from .checkpoint import CheckpointSummary
from .planning import Plan
from .report import format_bytes, shorten, text_table

# More would push the table of layers out of sight.
_SHOWN_RUNS = 5


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
            f"with recipe {summary.provenance.get('recipe', {}).get('name')}"
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
    """Return a plan as text: headline, warnings, one line per layer."""
    formats = ", ".join(f"{count} {name}" for name, count in plan.counts().items())
    lines = [
        f"model   {plan.architecture}",
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
    return "\n".join([*lines, "", table])


def describe_statistics(statistics: CalibrationStatistics) -> str:
    """Return statistics as text: runs, coverage, one line per layer."""
    coverage = statistics.coverage()
    lines = [
        f"{len(statistics.runs)} runs, {statistics.model_calls} model calls, "
        f"{len(statistics.layers)} layers, {len(statistics.inputs)} distinct inputs",
    ]
    if coverage.partial:
        lines.append(f"observed in part: {shorten(coverage.partial)}")
    if coverage.nonfinite:
        lines.append(f"NaN or infinite inputs: {shorten(coverage.nonfinite)}")
    shown = statistics.runs[-_SHOWN_RUNS:]
    if len(shown) < len(statistics.runs):
        lines.append(f"{len(statistics.runs) - len(shown)} earlier runs, then")
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
