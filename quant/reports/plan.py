"""A plan as text: what each layer becomes, and why."""

from __future__ import annotations

from ..planning import Plan, PlannedLayer
from ..text import format_bytes, text_table

# More would push the table of layers out of sight.
_SHOWN_REASONS = 32


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
