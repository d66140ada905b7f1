"""The choice of formats as an optimisation problem over groups of layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...errors import PlanError
from ...planning.inventory import Inventory
from ...planning.plan import Plan
from ...planning.recipe import layer_size
from ...progress import OnProgress, numbered
from .budget import Budget, format_size
from .knapsack import RELATIVE_GAP, Table, choose, least_value, least_weight
from .options import Group, Member, Option
from .two_limits import OutOfReachError, choose_within

# Shares are sums of floats.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class MixPoint:
    """Size and error of one mix.

    Attributes:
        bytes: bytes of all tensors in the checkpoint.
        bits: average nominal bits per weight of the mixed layers.
        error: predicted relative error, 0.03 for 3%.
        counts: mixed layers per format, most frequent format first.
        uncounted: number of mixed layers whose error is unknown. ``error`` leaves them out.
        four_bit: share of the mixed weights whose native products take 4 bits, 0 to 1.
    """

    bytes: int
    bits: float
    error: float
    counts: Mapping[str, int]
    uncounted: int = 0
    four_bit: float = 1.0


@dataclass(frozen=True)
class MixProblem:
    """The groups of a model, the bytes that no choice changes, and the number of mixed weights."""

    groups: Sequence[Group]
    fixed_bytes: int
    weights: int

    @classmethod
    def of(cls, base: Plan, inventory: Inventory, groups: Sequence[Group]) -> MixProblem:
        """Return the problem of choosing the formats of these groups of a plan."""
        names = {name for group in groups for name in group.layers}
        fixed = sum(la.bytes_after for la in base.layers if la.name not in names)
        weights = sum(layer_size(inventory.layers[name]) for name in names)
        return cls(groups, fixed, weights)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The layers of unknown error."""
        return tuple(name for group in self.groups for name in group.unknown)

    @property
    def bytes(self) -> list[list[float]]:
        """Stored bytes of each group's options."""
        return [[float(option.bytes) for option in group.options] for group in self.groups]

    @property
    def bits(self) -> list[list[float]]:
        """Nominal bits of each group's options."""
        return [[option.bits for option in group.options] for group in self.groups]

    @property
    def costs(self) -> list[list[float]]:
        """Squared errors of each group's options."""
        return [[option.cost for option in group.options] for group in self.groups]

    def pick(self, indices: Iterable[int]) -> list[Option]:
        """Return the option at each group's index."""
        return [group.options[i] for group, i in zip(self.groups, indices, strict=True)]

    def point(self, chosen: Sequence[Option]) -> MixPoint:
        """Return the size and error of a choice."""
        members = [(option.format, m) for option in chosen for m in option.members.values()]
        return point_of(members, self.fixed_bytes, self.weights)

    def solve(self, budget: Budget) -> list[Option]:
        """Return the best choice within a budget.

        Raises:
            PlanError: the budget is out of reach.
        """
        if budget.size is not None:
            indices = self._choose(
                self.costs, self.bytes, budget.size - self.fixed_bytes, budget.four_bit
            )
        elif budget.bits is not None:
            limit = budget.bits * self.weights
            indices = self._choose(self.costs, self.bits, limit, budget.four_bit)
        elif budget.layer_error is not None:
            return [_smallest(group, budget.layer_error) for group in self.groups]
        else:
            limit = (budget.error or 0.0) ** 2
            indices = self._choose(self.bytes, self.costs, limit, budget.four_bit)
        if indices is None:
            raise PlanError(self._out_of_reach(budget))
        return self.pick(indices)

    def fits(self, chosen: Sequence[Option] | Plan, budget: Budget) -> bool:
        """Whether a choice, or a plan without a limit of 4-bit products, is within a limit."""
        if isinstance(chosen, Plan):
            limit = 0 if budget.size is None or budget.four_bit else budget.size
            return chosen.bytes_after <= limit
        point = self.point(chosen)
        if point.four_bit < budget.four_bit - _ROUNDING:
            return False
        if budget.size is not None:
            return point.bytes <= budget.size
        return budget.bits is not None and point.bits <= budget.bits

    @property
    def wider(self) -> list[list[float]]:
        """Weights of each group's options whose products take more than 4 bits."""
        return [[float(option.wider) for option in group.options] for group in self.groups]

    def _choose(
        self,
        values: Table,
        weights: Table,
        limit: float,
        four_bit: float,
        gap: float = RELATIVE_GAP,
    ) -> list[int] | None:
        """Choose as `knapsack.choose` does, and leave a share of the weights in 4-bit products.

        Raises:
            PlanError: the limit leaves a smaller share.
        """
        most_wider = (1.0 - four_bit) * self.weights
        try:
            return choose_within(values, weights, limit, self.wider, most_wider, gap=gap)
        except OutOfReachError as error:
            share = math.floor((1.0 - error.least / self.weights) * 1e4) / 1e2
            raise PlanError(
                f"{four_bit * 100:.4g}% of the mixed weights in 4-bit products is out of reach: "
                f"within the budget at most {share:g}% can stay there. Ask for a smaller "
                "share, change the budget, or allow a format with 4-bit products, such as nvfp4"
            ) from None

    def frontier(
        self,
        points: int,
        known: MixPoint | None = None,
        four_bit: float = 0.0,
        *,
        on_progress: OnProgress | None = None,
    ) -> tuple[MixPoint, ...]:
        """Return the frontier: the best mixes at ``points`` sizes, and the ``known`` mix.

        All have at least the share ``four_bit`` of the weights in 4-bit products.
        """
        if points < 1:
            return ()
        low, high = (self.point(self.pick(ends)) for ends in self._ends(four_bit))
        found = [low] if known is None else [known, low]
        for step in range(1, points - 1):
            if on_progress:
                on_progress(step, points, numbered("point", step, points, "frontier"))
            # With an infinite gap, a mix is the best one of its own size, just below the given
            # size. Sizes are closer together for small files, where a byte changes the error most.
            size = low.bytes + (high.bytes - low.bytes) * (step / (points - 1)) ** 2
            left = size - self.fixed_bytes
            indices = self._choose(self.costs, self.bytes, left, four_bit, gap=math.inf)
            if indices is not None:
                found.append(self.point(self.pick(indices)))
        return _improving([*found, high])

    def _ends(self, four_bit: float) -> tuple[list[int], list[int]]:
        """Return the smallest and the most precise choice with a share of 4-bit products."""
        if not four_bit:
            return least_weight(self.costs, self.bytes), least_value(self.costs, self.bytes)
        most = (1.0 - four_bit) * self.weights
        small, precise = (choose(values, self.wider, most) for values in (self.bytes, self.costs))
        assert small is not None and precise is not None  # a mix with this share was found
        return small, precise

    def _out_of_reach(self, budget: Budget) -> str:
        unknown = sum(len(group.unknown) for group in self.groups)
        forced = (
            f" ({unknown} layers of unknown error need the most precise format; measure them)"
            if unknown
            else ""
        )
        if budget.error is not None:
            best = self.point(self.pick(least_weight(self.bytes, self.costs)))
            percent = math.ceil(best.error * 1e6) / 1e4
            return (
                f"a predicted error of {budget.error * 100:.4g}% is out of reach: the most precise "
                f"formats allowed give {percent:.4f}%; allow a larger error, or a more precise "
                "format such as bf16"
            )
        change = (
            "allow a larger budget or a smaller format such as nvfp4, or choose a recipe that "
            "keeps fewer layers"
        )
        if budget.bits is not None:
            lightest = self.point(self.pick(least_weight(self.costs, self.bits)))
            bits = math.ceil(lightest.bits * 1e4 - 1e-6) / 1e4
            return (
                f"{budget.bits:g} bits per weight are out of reach: the smallest formats allowed "
                f"take {bits:g}{forced}; {change}"
            )
        lightest = self.point(self.pick(least_weight(self.costs, self.bytes)))
        return (
            f"a size of {format_size(budget.size or 0)} is out of reach: the smallest formats "
            f"allowed take {format_size(lightest.bytes)}, of which layers that the recipe does not "
            f"mix take {format_size(self.fixed_bytes)}{forced}; {change}"
        )


def _smallest(group: Group, layer_error: float) -> Option:
    """Return the smallest option within an error of each layer, else the most precise option."""
    fitting = [option for option in group.options if option.stays_within(layer_error)]
    if not fitting:
        return max(group.options, key=lambda option: (option.bits, -option.cost))
    return min(fitting, key=lambda option: (option.bytes, option.cost))


def _improving(points: Sequence[MixPoint]) -> tuple[MixPoint, ...]:
    """Return the points without those whose error is no smaller than that of a smaller point."""
    kept: list[MixPoint] = []
    for point in sorted(points, key=lambda p: (p.bytes, p.error)):
        if not kept or point.error < kept[-1].error:
            kept.append(point)
    return tuple(kept)


def point_of(members: Sequence[tuple[str, Member]], fixed_bytes: int, weights: int) -> MixPoint:
    """Return the size and error of a mix from the (format, member) pairs of its layers."""
    costs = [m.cost for _, m in members]
    return MixPoint(
        bytes=fixed_bytes + sum(m.bytes for _, m in members),
        bits=sum(m.bits for _, m in members) / weights,
        error=math.sqrt(math.fsum(cost for cost in costs if cost is not None)),
        counts=dict(Counter(name for name, _ in members).most_common()),
        uncounted=costs.count(None),
        four_bit=1.0 - sum(m.wider for _, m in members) / weights,
    )
