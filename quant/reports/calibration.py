"""Report a calibration as text."""

from __future__ import annotations

from ..calibration import ENOUGH_TOKENS, CalibrationStatistics, assess_convergence
from ..text import shorten, text_table
from .messages import Message, messages_of

# More runs would push the table of layers off the screen.
_SHOWN_RUNS = 5


def describe_statistics(statistics: CalibrationStatistics) -> str:
    """Return a calibration as text: its runs, its coverage, one line per layer."""
    lines = [
        f"{len(statistics.runs)} runs, {statistics.model_calls} model calls, "
        f"{len(statistics.layers)} layers, {len(statistics.inputs)} distinct inputs",
    ]
    lines += (message.text for message in statistics_messages(statistics))
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


def statistics_messages(statistics: CalibrationStatistics) -> tuple[Message, ...]:
    """Return what a user should know about a calibration: its Hessians, when more
    prompts would change little, and what it lacks."""
    coverage = statistics.coverage()
    notes = _describe_moments(statistics)
    notes += filter(None, [assess_convergence(statistics).describe()])
    if interrupted := [run.id[:8] for run in statistics.runs if run.interrupted]:
        notes.append(f"interrupted runs that were taken in: {shorten(interrupted)}")
    warnings = []
    if coverage.partial:
        warnings.append(f"observed in part: {shorten(coverage.partial)}")
    if coverage.nonfinite:
        warnings.append(f"NaN or infinite inputs: {shorten(coverage.nonfinite)}")
    return messages_of(notes, warnings)


def _describe_moments(statistics: CalibrationStatistics) -> list[str]:
    """Return a line on the Hessians collected, if there are any."""
    inputs = statistics.inputs.values()
    per_channel = [la.moments.tokens / la.in_features for la in inputs if la.moments]
    if not per_channel:
        return []
    enough = sum(tokens >= ENOUGH_TOKENS for tokens in per_channel)
    return [
        f"Hessians of {len(per_channel)} of {len(inputs)} inputs, {enough} of them from at least "
        f"{ENOUGH_TOKENS} tokens per channel; sample more prompts to complete the inputs in blocks"
        if enough < len(inputs)
        else f"Hessians of all {enough} inputs from at least {ENOUGH_TOKENS} tokens per channel"
    ]
