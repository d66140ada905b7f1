"""The mixes that are worth sampling whole, because their predicted errors are near each other.

The sum of squared shifts treats the errors of layers as independent. Where the errors of one kind
of layer add up with those of others, as those of the text layers do, another mix may be better than
the one with the least sum. Short samplings with all layers of a mix quantized tell which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ...errors import PlanError
from ...formats import get_format
from ...planning.inventory import Inventory
from ...planning.plan import Plan
from ...sensitivity.artefact import Sensitivity
from ...sensitivity.whole import Formats, WholeShift, comparable, formats_digest
from .budget import Budget
from .options import MIX_FORMATS, Option, find_groups
from .problem import MixProblem

#: Mixes to sample besides the best one and the preset.
MOST_RIVALS = 6
# On the demo model, the predicted errors of the best mixes when sampled whole were within this
# factor of the least one.
_NEAR = 1.25


def rival_mixes(
    base: Plan,
    inventory: Inventory,
    sensitivity: Sensitivity,
    budget: Budget | None = None,
    formats: Sequence[str] = MIX_FORMATS,
    most: int = MOST_RIVALS,
) -> list[Formats]:
    """Return the mixes to sample whole: the plan ``base``, the best mix, and those near it.

    A rival gives all layers of one kind, such as ``cross_attn.k`` of every block, another format,
    and is the best mix within the budget under this condition. For the arguments and errors see
    `mix_plan`.
    """
    budget = budget or Budget(size=base.bytes_after)
    groups = find_groups(base, inventory, sensitivity, formats)
    problem = MixProblem.of(base, inventory, groups)
    best = problem.solve(budget)
    bound = _NEAR * problem.point(best).error
    found: dict[str, tuple[float, Formats]] = {}
    for chosen in _with_one_kind_forced(problem, best, budget):
        error = problem.point(chosen).error
        if error <= bound:
            quantized = quantized_formats(chosen)
            found.setdefault(formats_digest(quantized), (error, quantized))
    rivals = [formats for _, formats in sorted(found.values(), key=lambda entry: entry[0])]
    mixes = [formats_of(base), quantized_formats(best), *rivals]
    return list({formats_digest(mix): mix for mix in mixes}.values())[: most + 2]


def _with_one_kind_forced(
    problem: MixProblem, best: Sequence[Option], budget: Budget
) -> Iterator[list[Option]]:
    """Yield the best choices with one kind of layer in a format that the best choice differs in."""
    kinds: dict[str, list[int]] = {}
    for index, group in enumerate(problem.groups):
        if group.is_offered:
            kinds.setdefault(_kind(group.layers), []).append(index)
    for indices in kinds.values():
        for name in {o.format for i in indices for o in problem.groups[i].options}:
            if all(best[i].format == name for i in indices):
                continue
            groups = list(problem.groups)
            for i in indices:
                only = tuple(o for o in groups[i].options if o.format == name)
                groups[i] = replace(groups[i], options=only or groups[i].options)
            try:
                yield replace(problem, groups=groups).solve(budget)
            except PlanError:  # out of reach
                continue


def _kind(layers: Sequence[str]) -> str:
    return " ".join(re.sub(r"\d+", "*", name) for name in layers)


def quantized_formats(chosen: Sequence[Option]) -> Formats:
    """Return the quantized layers of a choice with their formats."""
    return {
        name: option.format
        for option in chosen
        if get_format(option.format).is_quantized
        for name in option.members
    }


def formats_of(plan: Plan) -> Formats:
    """Return the quantized Linear layers of a plan with their formats."""
    return {layer.name: layer.format for layer in plan.quantized() if layer.kind == "linear"}


@dataclass(frozen=True)
class SampledChoice:
    """A mix that was sampled whole. ``options`` is None for the plan that it was made from."""

    whole: WholeShift
    options: list[Option] | None


def sampled_choices(
    base: Plan,
    problem: MixProblem,
    best: Sequence[Option],
    sensitivity: Sensitivity,
    budget: Budget,
) -> list[SampledChoice]:
    """Return the choices to compare with the best one by their whole shifts, the least first.

    There are none if the best choice was not sampled whole.
    """
    candidates: list[SampledChoice] = []
    for whole in comparable(sensitivity.whole):
        chosen = _choice_with(problem, whole.formats)
        if chosen is not None and problem.fits(chosen, budget):
            candidates.append(SampledChoice(whole, chosen))
        elif whole.key == formats_digest(formats_of(base)) and problem.fits(base, budget):
            candidates.append(SampledChoice(whole, None))
    # A limit of the error has no candidates: whole shifts are no measure of its sum.
    if formats_digest(quantized_formats(best)) not in {each.whole.key for each in candidates}:
        return []
    return candidates


def _choice_with(problem: MixProblem, formats: Formats) -> list[Option] | None:
    """Return the options that give the layers these formats; None if there are none."""
    chosen = []
    for group in problem.groups:
        wanted = {name: formats.get(name) for name in group.layers}
        for option in group.options:
            stored = option.format if get_format(option.format).is_quantized else None
            if all(fmt == stored for fmt in wanted.values()):
                chosen.append(option)
                break
        else:
            return None
    return chosen
