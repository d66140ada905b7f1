"""The view of a mix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...derive import Budget, Mix, MixPoint
from ...planning import Inventory
from ...sensitivity.artefact import Sensitivity
from ...text import format_bytes
from ..messages import messages_of
from ..mix import describe_mix, mix_messages, rest_of_budget, what_is_predicted
from .layer_view import LayerView, Tile, Tone, with_notes
from .measures import measures_with_values
from .numbers import rounded, rounded_up
from .plan import columns_of, edit_of_plan
from .sensitivity import errors_by_format, errors_in
from .tiles import error_text, formats_tile, size_tile


def mix_view(
    mix: Mix,
    sensitivity: Sensitivity,
    notes: Sequence[str] = (),
    *,
    inventory: Inventory | None = None,
    widget: str = "rules",
    rules: str | None = None,
) -> LayerView:
    """Return the view of a mix.

    Args:
        mix: the mix.
        sensitivity: the errors that it was made from.
        notes: shown before the warnings of the mix.
        inventory: the inventory of the model; without it, formats cannot be edited.
        widget: the name of the node's widget of rule lines.
        rules: the text of that widget.

    Raises:
        PlanError: the mix was made for another model than the inventory.
    """
    plan = mix.plan
    names = [la.name for la in plan.layers]
    values = errors_in(sensitivity, names, [la.format for la in plan.layers])
    values["bytes"] = [float(la.bytes_after) for la in plan.layers]
    return LayerView(
        kind="mix",
        title=f"Mix of {plan.architecture} for {mix.budget}",
        text=with_notes(notes, describe_mix(mix)),
        tiles=_tiles(mix),
        messages=(*messages_of(notes), *mix_messages(mix)),
        layers=columns_of(plan, values),
        measures=measures_with_values(values),
        errors=errors_by_format(sensitivity, names),
        edit=edit_of_plan(plan, inventory, widget, rules) if inventory is not None else None,
        frontier=_frontier(mix),
    )


def _tiles(mix: Mix) -> tuple[Tile, ...]:
    plan, point, preset = mix.plan, mix.point, mix.preset
    tone: Tone = "good" if point.error < preset.error else ""
    return (
        size_tile(plan.bytes_before, point.bytes),
        Tile(
            "predicted error",
            error_text(point.error),
            f"preset {mix.preset_name}: {error_text(preset.error)}, {format_bytes(preset.bytes)}",
            tone,
        ),
        Tile(
            "bits per weight",
            f"{point.bits:.2f}",
            f"nominal, of the mixed layers; preset {preset.bits:.2f}",
        ),
        *_sampled_tile(mix),
        formats_tile(point.counts),
        Tile(
            "4-bit products",
            f"{point.four_bit:.1%}",
            f"of the mixed weights, the fastest on Blackwell; preset {preset.four_bit:.1%}",
        ),
        Tile("budget", str(mix.budget), rest_of_budget(mix)),
    )


def _sampled_tile(mix: Mix) -> tuple[Tile, ...]:
    """Return the tile of what samplings with the whole mix showed, if there were any."""
    found = mix.sampled
    if found is None:
        return ()
    tone: Tone = "good" if found.preset is not None and found.mix < found.preset else ""
    preset = "" if found.preset is None else f"preset {error_text(found.preset)}; "
    detail = f"{preset}the least of {found.mixes} mixes"
    return (Tile("sampled whole", error_text(found.mix), detail, tone),)


def _frontier(mix: Mix) -> dict[str, Any]:
    sampled = mix.sampled.points if mix.sampled else ()
    return {
        "points": [_point(point) for point in mix.frontier],
        "mix": _point(mix.point),
        "preset": {"name": mix.preset_name, **_point(mix.preset)},
        "sampled": [
            {**_point(each.point), "shift": rounded(each.shift), "is_preset": each.is_preset}
            for each in sampled
        ],
        "label": f"predicted error {what_is_predicted(mix)}",
        "budget": _budget(mix.budget),
    }


def _point(point: MixPoint) -> dict[str, Any]:
    return {
        "bytes": rounded_up(point.bytes),
        "bits": rounded_up(point.bits),
        "error": rounded_up(point.error),
        "counts": dict(point.counts),
    }


def _budget(budget: Budget) -> dict[str, Any]:
    for kind in ("size", "bits", "error", "layer_error"):
        value = getattr(budget, kind)
        if value is not None:
            return {"kind": kind, "value": rounded(value)}
    raise AssertionError("a budget has a limit")
