"""The multiple-choice knapsack problem, solved as an integer program.

Choose one option per group, so that the sum of values is as small as possible and the sum of
weights stays below a limit. The solver is ``scipy.optimize.milp`` (HiGHS). This module does not
know what the options stand for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: The sum of values may be above the optimum by this relative gap. The gap may be larger if the
#: time limit ends the search.
RELATIVE_GAP = 1e-4
#: Relative tolerance of the limit, because sums of floats are rounded. A choice whose exact sum is
#: the limit must be allowed.
_ROUNDING = 1e-12
# HiGHS stops at an absolute gap of 1e-6 for any sum. Values are scaled to about this sum, so that
# the relative gap decides.
_VALUE_SCALE = 1000.0
# Weights are scaled so that the heaviest step has this weight. HiGHS keeps rows to 1e-6.
_WEIGHT_SCALE = 1 / 16
# How far from 0 or 1 a variable may be and still count as whole.
_WHOLE = 1e-6

#: Values or weights of the options of each group.
Table = Sequence[Sequence[float]]


@dataclass(frozen=True)
class _Option:
    index: int
    value: float
    weight: float


def least_weight(values: Table, weights: Table) -> list[int]:
    """Return the index of each group's lightest option; among equals, the one of least value."""
    return [_pareto(v, w)[0].index for v, w in zip(values, weights, strict=True)]


def least_value(values: Table, weights: Table) -> list[int]:
    """Return the index of each group's option of least value; among equals, the lightest."""
    return [_pareto(v, w)[-1].index for v, w in zip(values, weights, strict=True)]


def choose(
    values: Table,
    weights: Table,
    limit: float,
    *,
    seconds: float = 5.0,
    gap: float = RELATIVE_GAP,
) -> list[int] | None:
    """Choose one option per group: least sum of values, sum of weights at most ``limit``.

    Args:
        values: the values of each group's options, finite and not negative. Each group has at
            least one option.
        weights: the weights of the same options.
        limit: the largest sum of weights.
        seconds: the time limit of the search. After it, the best choice found so far is returned.
        gap: the sum of values may be above the optimum by this relative gap. With an infinite
            gap, the rounded choice of the relaxed problem is returned. It weighs slightly less
            than ``limit``, and no choice of its weight has a smaller sum of values.

    Returns:
        An index per group, or None if even the lightest options weigh more than ``limit``.
    """
    groups = [_pareto(v, w) for v, w in zip(values, weights, strict=True)]
    limit += abs(limit) * _ROUNDING
    best = [group[-1] for group in groups]
    if _weight(best) > limit:
        best = [group[0] for group in groups]
        if _weight(best) > limit:
            return None
        best = _search(groups, best, limit, seconds, gap)
    return [option.index for option in best]


def _pareto(values: Sequence[float], weights: Sequence[float]) -> list[_Option]:
    """Return the Pareto front: options in order of increasing weight and decreasing value."""
    kept: list[_Option] = []
    for weight, value, index in sorted(zip(weights, values, range(len(values)), strict=True)):
        if not kept or value < kept[-1].value:
            kept.append(_Option(index, value, weight))
    return kept


def _search(
    groups: list[list[_Option]],
    lightest: list[_Option],
    limit: float,
    seconds: float,
    gap: float,
) -> list[_Option]:
    program = _Program(groups, limit, seconds, gap)
    relaxed = program.solve(_VALUE_SCALE / _value(lightest), whole=False)
    if relaxed is None:
        return lightest
    # Every option with a share in the relaxed solution minimises value + price * weight, where
    # price is the dual variable of the limit. So the lightest of these options are together the
    # best choice of their total weight. Few groups are split between options, so this weight is
    # close to the limit.
    best = [
        group[min(i for i, x in enumerate(part) if x > _WHOLE)]
        for group, part in zip(groups, program.split(relaxed), strict=True)
    ]
    best = min((c for c in (best, lightest) if _weight(c) <= limit), key=_value)
    bound = program.value(relaxed)
    if _value(best) - bound <= gap * _value(best):
        return best
    # The solver's variables are whole within a tolerance, so the rounded choice may weigh slightly
    # too much. Then solve again with a lower limit.
    for _ in range(3):
        found = program.solve(_VALUE_SCALE / _value(best), whole=True)
        if found is None:
            break
        whole = [
            group[max(range(len(group)), key=part.__getitem__)]
            for group, part in zip(groups, program.split(found), strict=True)
        ]
        excess = _weight(whole) - limit
        if excess <= 0:
            return min(best, whole, key=_value)
        program = _Program(groups, program.limit - 2 * excess, seconds, gap)
    return best


class _Program:
    """The integer program. Its variables are the options of all groups in order, 1 if chosen."""

    def __init__(self, groups: list[list[_Option]], limit: float, seconds: float, gap: float):
        self.groups = groups
        self.limit = limit
        self.settings = {"mip_rel_gap": gap, "time_limit": seconds}

    def solve(self, scale: float, *, whole: bool) -> list[float] | None:
        """Return the variables, or None if no solution was found.

        Variables are fractions from 0 to 1; with ``whole``, they are 0 or 1 within a tolerance.
        """
        # scipy is slow to import, and only a mix needs it
        import numpy as np
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        options = [option for group in self.groups for option in group]
        owners = [row for row, group in enumerate(self.groups) for _ in group]
        ones = csr_array((np.ones(len(options)), (owners, np.arange(len(options)))))
        # Weights relative to the lightest option have similar magnitudes, which HiGHS needs.
        extra = np.array(
            [option.weight - group[0].weight for group in self.groups for option in group]
        )
        room = self.limit - _weight([group[0] for group in self.groups])
        unit = _WEIGHT_SCALE / max(extra.max(initial=0.0), 1e-300)
        result: Any = milp(
            np.array([option.value for option in options]) * scale,
            integrality=np.full(len(options), int(whole)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(ones, 1, 1),
                LinearConstraint(csr_array(extra[None] * unit), -np.inf, room * unit),
            ],
            options=self.settings,
        )
        return None if result.x is None else result.x.tolist()

    def split(self, variables: list[float]) -> list[list[float]]:
        """Return the variables as one list per group."""
        remaining = iter(variables)
        return [[next(remaining) for _ in group] for group in self.groups]

    def value(self, variables: list[float]) -> float:
        """Return the sum of values."""
        options = (option for group in self.groups for option in group)
        return math.fsum(o.value * x for o, x in zip(options, variables, strict=True))


def _value(chosen: Sequence[_Option]) -> float:
    return math.fsum(option.value for option in chosen)


def _weight(chosen: Sequence[_Option]) -> float:
    return math.fsum(option.weight for option in chosen)
