"""Mix formats to fit a budget: the least predicted error for a size, or the least size.

The squared errors of the layers are added up, as for independent errors. This fits probed latent
shifts well. But single model calls rank layers differently from whole samplings, and errors of the
layers' own outputs rank them differently again. docs/fidelity.md has measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...fingerprint import ModelFingerprint
from ...formats import get_format
from ...planning.inventory import Inventory
from ...planning.loadable import require_loadable
from ...planning.plan import Plan, make_plan
from ...planning.recipe import Recipe, Rule, layer_size
from ...progress import OnProgress
from ...sensitivity.artefact import Sensitivity
from ...sensitivity.whole import formats_digest
from ..exact_recipe import exact_recipe
from .budget import Budget, format_size
from .options import MIX_FORMATS, Option, find_groups, member
from .problem import MixPoint, MixProblem, point_of
from .reasons import mix_warnings, mixed_layers
from .rivals import SampledChoice, formats_of, quantized_formats, sampled_choices

FRONTIER_POINTS = 14


@dataclass(frozen=True)
class SampledPoint:
    """Size and predicted error of a mix, and how far it moved the sampled latent, 0.03 for 3%.

    ``is_preset``: it is the plan that the mixes started from.
    """

    point: MixPoint
    shift: float
    is_preset: bool


@dataclass(frozen=True)
class SampledMix:
    """Shifts of the sampled latent with all layers of a mix quantized, 0.03 for 3%.

    ``mix`` is the mix that was taken, ``preset`` the plan that it started from (None: not sampled),
    ``least_sum`` the mix of the least predicted error, ``mixes`` how many were sampled. ``points``
    has all of them, the one that was taken first.
    """

    mix: float
    preset: float | None
    least_sum: float
    mixes: int
    points: tuple[SampledPoint, ...] = ()


@dataclass(frozen=True)
class Mix:
    """The best mix for a budget, and other mixes to compare it with.

    Attributes:
        plan: the plan of this mix; its recipe names every layer.
        budget: the limit that was given.
        point: size and error of this mix.
        preset: size and error of the plan that the mix started from.
        preset_name: name of that plan's recipe.
        frontier: mixes in order of increasing size and decreasing error.
        unknown: layers of unknown error, which get the most precise format.
        has_latents: True if errors are errors of the model's output. Otherwise an error is the
            root of the summed squared errors of the layers' own outputs, which says little about
            the model's output.
        is_of_samplings: True if errors are errors of the sampled latent, False if they are errors
            of single model calls.
        sampled: what whole samplings with this mix and its rivals showed; None: not sampled.
    """

    plan: Plan
    budget: Budget
    point: MixPoint
    preset: MixPoint
    preset_name: str
    frontier: tuple[MixPoint, ...]
    unknown: tuple[str, ...]
    has_latents: bool
    is_of_samplings: bool = False
    sampled: SampledMix | None = None

    @property
    def recipe(self) -> Recipe:
        """The plan's recipe, which reproduces this mix layer by layer."""
        return self.plan.recipe

    @property
    def below_budget(self) -> float:
        """The share of the budget that is left, 0.003 for 0.3%."""
        budget, point = self.budget, self.point
        for limit, used in (
            (budget.size, point.bytes),
            (budget.bits, point.bits),
            (budget.error, point.error),
        ):
            if limit is not None:
                return 1 - used / limit
        return 0.0  # a limit for each layer has no rest

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data."""
        return {
            "budget": asdict(self.budget),
            "below_budget": self.below_budget,
            "mix": asdict(self.point),
            "preset": {"name": self.preset_name, **asdict(self.preset)},
            "frontier": [asdict(point) for point in self.frontier],
            "unknown": list(self.unknown),
            "has_latents": self.has_latents,
            "is_of_samplings": self.is_of_samplings,
            "sampled": asdict(self.sampled) if self.sampled else None,
            "plan": self.plan.to_json(),
        }


def mix_plan(
    base: Plan,
    inventory: Inventory,
    sensitivity: Sensitivity,
    budget: Budget | None = None,
    formats: Sequence[str] = MIX_FORMATS,
    *,
    rules: Sequence[Rule] = (),
    fingerprint: ModelFingerprint | None = None,
    points: int = FRONTIER_POINTS,
    on_progress: OnProgress | None = None,
) -> Mix:
    """Choose the format of each Linear layer that ``base`` quantizes; keep the rest of the plan.

    Layers that share an input get one format. A layer of unknown error counts as sensitive and
    gets the most precise format.

    Args:
        base: a preset's plan of the same model.
        inventory: the inventory that ``base`` was made from.
        sensitivity: what each layer loses in each format.
        budget: a limit of size or bits gives the least error within it, and a limit of error the
            least size within it. A limit of the error of each layer gives each its smallest format
            within it, or else the most precise one. None means the size of ``base``.
        formats: the formats to choose from.
        rules: rules of the user for some layers. The mix chooses the formats of the others.
        fingerprint: the fingerprint of the model, if it is to be checked against the sensitivity.
        points: the number of points of the frontier; 0 leaves the frontier out.
        on_progress: called before each point of the frontier.

    Raises:
        CalibrationError: the sensitivity is of a different model.
        PlanError: a format needs a newer ComfyUI, the plan is of another model or quantizes no
            Linear layer, all errors are unknown, or the budget is out of reach. The message then
            names the smallest possible budget.
        FormatError: a format is unknown.
    """
    base.require_layers(inventory)
    _require_loadable(base, formats)
    drift = _drift(sensitivity, fingerprint)
    budget = budget or Budget(size=base.bytes_after)
    ruled, problem = _problem_with_rules(base, inventory, sensitivity, formats, rules)
    least_sum = problem.solve(budget)
    choices = sampled_choices(ruled, problem, least_sum, sensitivity, budget)
    taken = choices[0].options if choices else least_sum
    preset = _preset_point(base, inventory, sensitivity)
    point = problem.point(taken) if taken else preset  # the preset may have moved the latent least
    warnings = mix_warnings(ruled, sensitivity, problem.unknown, drift)
    return Mix(
        plan=_mixed_plan(ruled, problem, taken, _describe(point, budget), warnings),
        budget=budget,
        point=point,
        preset=preset,
        preset_name=base.recipe.name,
        frontier=problem.frontier(points, point, budget.four_bit, on_progress=on_progress),
        unknown=problem.unknown,
        has_latents=sensitivity.has_latents,
        is_of_samplings=sensitivity.is_of_samplings,
        sampled=_sampled(choices, ruled, least_sum, problem, preset),
    )


def _sampled(
    choices: Sequence[SampledChoice],
    base: Plan,
    least_sum: Sequence[Option],
    problem: MixProblem,
    preset: MixPoint,
) -> SampledMix | None:
    if not choices:
        return None
    by_key = {each.whole.key: each.whole.shift for each in choices}
    own = formats_digest(formats_of(base))
    return SampledMix(
        mix=choices[0].whole.shift,
        preset=by_key.get(own),
        least_sum=by_key[formats_digest(quantized_formats(least_sum))],
        mixes=len(choices),
        points=tuple(
            SampledPoint(
                point=problem.point(each.options) if each.options else preset,
                shift=each.whole.shift,
                is_preset=each.whole.key == own,
            )
            for each in choices
        ),
    )


def _require_loadable(base: Plan, formats: Sequence[str]) -> None:
    mixed = {f"the mix ({name})": name for name in formats}
    require_loadable(base.recipe, base.architecture, mixed)


def _describe(point: MixPoint, budget: Budget) -> str:
    return f"Mix for {budget}: {format_size(point.bytes)}, predicted error {point.error:.2%}."


def _drift(sensitivity: Sensitivity, fingerprint: ModelFingerprint | None) -> str | None:
    """Return how the weights of the same model differ; None if they do not, or are not known."""
    if fingerprint is None:
        return None
    sensitivity.require_model(fingerprint)
    return sensitivity.fingerprint.drift(fingerprint)


def _problem_with_rules(
    base: Plan,
    inventory: Inventory,
    sensitivity: Sensitivity,
    formats: Sequence[str],
    rules: Sequence[Rule],
) -> tuple[Plan, MixProblem]:
    """Return the plan with these rules of the user first, and the problem of the other layers."""
    layers = inventory.layers.values()
    pinned = frozenset(la.name for la in layers if any(rule.matches(la) for rule in rules))
    if rules:
        base = make_plan(base.recipe.with_rules(rules), inventory, any_architecture=True)
    groups = find_groups(base, inventory, sensitivity, formats, pinned)
    return base, MixProblem.of(base, inventory, groups)


def _mixed_plan(
    base: Plan,
    problem: MixProblem,
    chosen: Sequence[Option] | None,
    description: str,
    warnings: tuple[str, ...],
) -> Plan:
    """Return ``base`` with the chosen formats, and a recipe that names every layer.

    Without a choice, ``base`` itself.
    """
    if chosen is None:
        return base
    layers = mixed_layers(base, problem.groups, chosen)
    recipe = exact_recipe(
        base.recipe,
        layers,
        {name for group in problem.groups if group.is_offered for name in group.layers},
        name=f"{base.recipe.name}-mix",
        description=description,
    )
    return Plan(recipe, base.architecture, layers, warnings)


def frontier(
    base: Plan,
    inventory: Inventory,
    sensitivity: Sensitivity,
    formats: Sequence[str] = MIX_FORMATS,
    points: int = FRONTIER_POINTS,
) -> tuple[MixPoint, ...]:
    """Return the least error at up to ``points`` sizes, from the smallest mix to the most precise.

    Points are in order of increasing size and decreasing error. Raises the errors of `mix_plan`.
    """
    groups = find_groups(base, inventory, sensitivity, formats)
    return MixProblem.of(base, inventory, groups).frontier(points)


def _preset_point(base: Plan, inventory: Inventory, sensitivity: Sensitivity) -> MixPoint:
    mixed = [la for la in base.quantized() if la.kind == "linear"]
    members = [
        (la.format, member(inventory.layers[la.name], get_format(la.format), sensitivity))
        for la in mixed
    ]
    fixed = base.bytes_after - sum(la.bytes_after for la in mixed)
    weights = sum(layer_size(inventory.layers[la.name]) for la in mixed)
    return point_of(members, fixed, max(1, weights))
