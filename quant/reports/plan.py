"""Report a plan as text: the format of each layer, and the reason."""

from __future__ import annotations

from ..planning import Plan, PlannedLayer
from ..text import format_bytes, text_table
from .messages import messages_of

# More reasons would push the table of layers off the screen.
_SHOWN_REASONS = 32


def describe_plan(plan: Plan, notes: tuple[str, ...] = ()) -> str:
    """Return a plan as text: headline, warnings, Linear layers by reason, one line per layer."""
    formats = ", ".join(f"{count} {name}" for name, count in plan.counts().items())
    lines = [
        f"model   {plan.architecture}",
        f"blocks  {', '.join(f'{n} {name}' for name, n in plan.blocks.items()) or 'none'}",
        f"recipe  {plan.recipe.name}",
        f"layers  {formats}",
        f"size    {format_bytes(plan.bytes_before)} -> {format_bytes(plan.bytes_after)}",
        *map(str, messages_of((*notes, *plan.version_notes), plan.warnings)),
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
    return "\n".join([*lines, *_layers_by_reason(plan), "", table])


def _layers_by_reason(plan: Plan) -> list[str]:
    """Return a table of the Linear layers by format and reason, the largest group first.

    Empty if there are too many reasons, as in recipes that name every layer.
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
    headings = ("format", "layers", "before", "after", "reason")
    return ["", text_table(headings, rows, left=("format", "reason"))]
