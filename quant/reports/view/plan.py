"""The view of a plan."""

from __future__ import annotations

from collections.abc import Sequence

from ...planning import Inventory, Plan
from ..messages import messages_of
from ..plan import describe_plan
from .editing import edit_of
from .layer_columns import LayerColumns
from .layer_view import LayerView
from .measures import measures_with_values
from .tiles import bits_tile, formats_tile, size_tile


def plan_view(
    plan: Plan,
    notes: Sequence[str] = (),
    *,
    inventory: Inventory | None = None,
    widget: str = "rules",
    rules: str | None = None,
) -> LayerView:
    """Return the view of a plan.

    Args:
        plan: the plan.
        notes: what to know about the source, shown before the warnings of the plan.
        inventory: the inventory that the plan was made from; without it, formats cannot be edited.
        widget: the name of the node's widget of rule lines.
        rules: the text of that widget.

    Raises:
        PlanError: the plan was made for another model than the inventory.
    """
    values = {"bytes": [float(la.bytes_after) for la in plan.layers]}
    linears = [la for la in plan.layers if la.kind == "linear"]
    return LayerView(
        kind="plan",
        title=f"Plan of {plan.architecture}, recipe {plan.recipe.name}",
        text=describe_plan(plan, tuple(notes)),
        tiles=(
            size_tile(plan.bytes_before, plan.bytes_after),
            bits_tile((la.shape, la.bytes_after) for la in linears),
            formats_tile(plan.counts()),
        ),
        messages=messages_of((*notes, *plan.version_notes), plan.warnings),
        layers=columns_of(plan, values),
        measures=measures_with_values(values),
        edit=edit_of_plan(plan, inventory, widget, rules) if inventory is not None else None,
    )


def columns_of(
    plan: Plan, values: dict[str, list[float | None]] | dict[str, list[float]]
) -> LayerColumns:
    """Return the layers of a plan with these values."""
    return LayerColumns(
        names=[la.name for la in plan.layers],
        kinds=[la.kind for la in plan.layers],
        shapes=[la.shape for la in plan.layers],
        formats=[la.format for la in plan.layers],
        reasons=[la.reason for la in plan.layers],
        values=values,
    )


def edit_of_plan(
    plan: Plan, inventory: Inventory, widget: str, rules: str | None = None
) -> dict[str, object]:
    """Return the ``edit`` part of the view of a plan.

    Raises:
        PlanError: the plan was made for another model.
    """
    plan.require_layers(inventory)
    ordered = Inventory({la.name: inventory.layers[la.name] for la in plan.layers})
    return edit_of(ordered, plan.architecture, widget, rules)
