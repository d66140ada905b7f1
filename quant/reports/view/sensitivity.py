"""The view of a sensitivity, and its errors for other views."""

from __future__ import annotations

from collections.abc import Sequence

from ...sensitivity.artefact import Sensitivity
from ..messages import messages_of
from ..sensitivity import describe_sensitivity, sensitivity_messages
from .layer_columns import LayerColumns
from .layer_view import LayerView, Tile, with_notes
from .measures import measures_with_values
from .numbers import rounded_all
from .tiles import error_text

ERRORS = ("w4a16", "w4a4", "weight", "latent")


def sensitivity_view(sensitivity: Sensitivity, notes: Sequence[str] = ()) -> LayerView:
    """Return the view of a sensitivity. The measures are the errors in its first format."""
    names, first = list(sensitivity.layers), next(iter(sensitivity.formats), "")
    values = errors_in(sensitivity, names, [first] * len(names))
    order = ("latent", "w4a4") if sensitivity.has_latents else ("w4a4",)
    return LayerView(
        kind="sensitivity",
        title=f"Sensitivity of {len(names)} layers, errors in {first}",
        text=with_notes(notes, describe_sensitivity(sensitivity)),
        tiles=_tiles(sensitivity, first),
        messages=(*messages_of(notes), *sensitivity_messages(sensitivity)),
        layers=LayerColumns(
            names=names,
            kinds=["linear"] * len(names),
            shapes=[la.shape for la in sensitivity.layers.values()],
            values=values,
        ),
        measures=measures_with_values(values, order, formats=False),
        errors=errors_by_format(sensitivity, names),
    )


def errors_in(
    sensitivity: Sensitivity, names: Sequence[str], formats: Sequence[str]
) -> dict[str, list[float | None]]:
    """Return each layer's errors in the format at its place; None where unknown."""
    found = [
        sensitivity.candidates(name).get(fmt) for name, fmt in zip(names, formats, strict=True)
    ]
    return {
        error: [getattr(candidate, error) if candidate else None for candidate in found]
        for error in ERRORS
    }


def errors_by_format(
    sensitivity: Sensitivity, names: Sequence[str]
) -> dict[str, dict[str, list[int | float | None]]]:
    """Return the ``errors`` part of a view: all measured errors by format."""
    errors = {}
    for fmt in sensitivity.formats:
        columns = errors_in(sensitivity, names, [fmt] * len(names))
        errors[fmt] = {
            error: rounded_all(column)
            for error, column in columns.items()
            if any(value is not None for value in column)
        }
    return errors


def _tiles(sensitivity: Sensitivity, first: str) -> tuple[Tile, ...]:
    costs = {name: sensitivity.cost(name, first) for name in sensitivity.layers}
    known = {name: cost for name, cost in costs.items() if cost is not None}
    tiles = [Tile("layers", str(len(costs)), f"rounding {sensitivity.rounding}")]
    tiles.append(Tile("formats", str(len(sensitivity.formats)), ", ".join(sensitivity.formats)))
    if known:
        worst = max(known, key=lambda name: known[name])
        tiles.append(Tile(f"worst in {first}", error_text(known[worst] ** 0.5), worst))
    unknown = len(sensitivity.unknown(first)) if first else 0
    if unknown:
        tiles.append(Tile("unknown", str(unknown), f"layers without an error in {first}", "bad"))
    return tuple(tiles)
