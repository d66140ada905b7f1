"""One option for every group, the sum of one quantity least while another keeps a limit.

The multiple-choice knapsack problem, as an integer program (``scipy.optimize.milp``, HiGHS).
Nothing here knows what is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: The sum to minimise may be above the optimum by this, relative, unless time runs out.
RELATIVE_GAP = 1e-4
#: Sums are of floats; a limit that is an exact sum must not be missed by its rounding.
_ROUNDING = 1e-12
# HiGHS stops at an absolute gap of 1e-6 whatever the sum; about this sum is far above that.
_VALUE_SCALE = 1000.0
# Of the heaviest step. HiGHS keeps rows to 1e-6, and repairs its own solutions where they miss.
_WEIGHT_SCALE = 1 / 16
_WHOLE = 1e-6

Table = Sequence[Sequence[float]]


@dataclass(frozen=True)
class _Option:
    index: int
    value: float
    weight: float


def least_weight(values: Table, weights: Table) -> list[int]:
    """Return each group's lightest option, the one of least value among equals."""
    return [_pareto(v, w)[0].index for v, w in zip(values, weights, strict=True)]


def least_value(values: Table, weights: Table) -> list[int]:
    """Return each group's option of least value, the lightest among equals."""
    return [_pareto(v, w)[-1].index for v, w in zip(values, weights, strict=True)]


def choose(
    values: Table,
    weights: Table,
    limit: float,
    *,
    seconds: float = 5.0,
    gap: float = RELATIVE_GAP,
) -> list[int] | None:
    """Return an option per group: least sum of values, sum of weights at most ``limit``.

    Args:
        values: of each group's options, at least one; finite and not negative.
        weights: of the same options.
        limit: of the sum of weights.
        seconds: limit of the search; after that the best choice found so far is returned.
        gap: the sum of values may be above the optimum by this, relative. Infinite: the choice
            of the relaxed problem, which is the best one of its own, somewhat smaller, weight.

    Returns:
        indices; None when even the lightest options weigh more than ``limit``.
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
    """Return the options worth having: by rising weight, each of less value than the last."""
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
    # Every option with a part in it is least in value + price * weight, at the limit's price. So
    # the lightest of them are together the best choice of their own weight. Hardly a group is
    # split, so that is nearly the limit.
    best = [
        group[min(i for i, x in enumerate(part) if x > _WHOLE)]
        for group, part in zip(groups, program.split(relaxed), strict=True)
    ]
    best = min((c for c in (best, lightest) if _weight(c) <= limit), key=_value)
    bound = program.value(relaxed)
    if _value(best) - bound <= gap * _value(best):
        return best
    # Solutions are whole within a tolerance, so a rounded one may weigh a little too much.
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
    """Variables are the options of all groups one after another, 1 for the chosen one."""

    def __init__(self, groups: list[list[_Option]], limit: float, seconds: float, gap: float):
        self.groups = groups
        self.limit = limit
        self.settings = {"mip_rel_gap": gap, "time_limit": seconds}

    def solve(self, scale: float, *, whole: bool) -> list[float] | None:
        """Return the variables, fractions unless ``whole``; None when none were found."""
        # slow to import, and only a mix needs it
        import numpy as np
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        options = [option for group in self.groups for option in group]
        owners = [row for row, group in enumerate(self.groups) for _ in group]
        ones = csr_array((np.ones(len(options)), (owners, np.arange(len(options)))))
        # Relative to the lightest option, so that the row's numbers are of one magnitude.
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
        """Return the variables group by group."""
        remaining = iter(variables)
        return [[next(remaining) for _ in group] for group in self.groups]

    def value(self, variables: list[float]) -> float:
        """Return the sum to minimise."""
        options = (option for group in self.groups for option in group)
        return math.fsum(o.value * x for o, x in zip(options, variables, strict=True))


def _value(chosen: Sequence[_Option]) -> float:
    return math.fsum(option.value for option in chosen)


def _weight(chosen: Sequence[_Option]) -> float:
    return math.fsum(option.weight for option in chosen)
