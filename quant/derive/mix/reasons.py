"""The reason for each layer's format in a mix, and the warnings of the mix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ...planning.plan import Plan, PlannedLayer
from ...sensitivity.artefact import Sensitivity
from .budget import format_size
from .options import Group, Member, Option

_NAMED = 6


def mixed_layers(
    base: Plan, groups: Sequence[Group], chosen: Sequence[Option]
) -> tuple[PlannedLayer, ...]:
    """Return the plan's layers with the chosen formats and the reasons for them."""
    total = math.fsum(option.cost for option in chosen)
    changed: dict[str, PlannedLayer] = {}
    planned = {layer.name: layer for layer in base.layers}
    for group, option in zip(groups, chosen, strict=True):
        if not group.is_offered:
            continue
        for name, part in option.members.items():
            changed[name] = replace(
                planned[name],
                format=option.format,
                reason=_reason(name, group, option, total),
                bytes_after=part.bytes,
            )
    return tuple(changed.get(layer.name, layer) for layer in base.layers)


def _reason(name: str, group: Group, option: Option, total: float) -> str:
    if name in group.unknown:
        return "mix: the error is unknown, so the layer gets the most precise format"
    if group.unknown:
        return f"mix: shares its input with {group.unknown[0]}, whose error is unknown"
    mine = option.members[name]
    text = f"mix: {_share(mine, total)} of the squared error"
    other = _neighbour(group, option)
    if other:
        theirs = other.members[name]
        saved = mine.bytes - theirs.bytes
        size = f"{format_size(abs(saved))} {'less' if saved >= 0 else 'more'}"
        text += f"; {other.format}: {_share(theirs, total)}, {size}"
    if len(group.layers) > 1:
        text += f"; one format for the {len(group.layers)} layers that share its input"
    return text


def _neighbour(group: Group, option: Option) -> Option | None:
    """Return the group's next smaller option; the next larger one if there is no smaller one."""
    smaller = [other for other in group.options if other.bytes < option.bytes]
    larger = [other for other in group.options if other.bytes > option.bytes]
    if smaller:
        return max(smaller, key=lambda other: other.bytes)
    return min(larger, key=lambda other: other.bytes, default=None)


def _share(part: Member, total: float) -> str:
    return f"{(part.cost or 0.0) / total:.2%}" if total > 0 else "none"


def mix_warnings(
    base: Plan, sensitivity: Sensitivity, unknown: Sequence[str], drift: str | None
) -> tuple[str, ...]:
    """Return the warnings of a mix.

    Warnings of ``base`` are left out, because they are about rules that the mix replaces.
    ``drift`` says how the weights differ from those that the sensitivity was measured on.
    """
    found = []
    if drift:
        found.append(
            f"the sensitivity was measured on other weights, for example without the LoRA that is "
            f"applied now ({drift}); for the best mix, measure the model as it is now"
        )
    if sensitivity.rounding != base.recipe.rounding:
        found.append(
            f"the sensitivity was measured with rounding {sensitivity.rounding}, but the recipe "
            f"has {base.recipe.rounding}; for the best mix, measure with the recipe's rounding"
        )
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        found.append(
            f"{len(unknown)} layers of unknown error get the most precise format: "
            f"{', '.join(unknown[:_NAMED])}{more}"
        )
    return tuple(found)
