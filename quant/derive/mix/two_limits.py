"""The multiple-choice knapsack problem with a second limit.

Choose one option per group as in ``knapsack``, with a limit of another sum besides that of weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .knapsack import RELATIVE_GAP, Table, choose

# HiGHS stops at an absolute gap of 1e-6 and keeps rows to 1e-6, so sums are scaled.
_VALUE_SCALE, _ROW_SCALE = 1000.0, 100.0
# The gap of a search that must be quick.
_QUICK_GAP = 1e-2
_ROUNDING = 1e-12
_ATTEMPTS = 3


class OutOfReachError(Exception):
    """No choice keeps both limits. ``least`` is the smallest second sum within the first limit."""

    def __init__(self, least: float) -> None:
        super().__init__(f"the second sum is at least {least:g}")
        self.least = least


def choose_within(
    values: Table,
    weights: Table,
    limit: float,
    others: Table,
    most: float,
    *,
    seconds: float = 5.0,
    gap: float = RELATIVE_GAP,
) -> list[int] | None:
    """Choose one option per group: least sum of values, and two sums within limits.

    Args:
        values: the values of each group's options, finite and not negative.
        weights: the weights of the same options.
        limit: the largest sum of weights.
        others: the second weights of the same options, not negative.
        most: the largest sum of these.
        seconds: the time limit of a search.
        gap: see `knapsack.choose`.

    Returns:
        An index per group, or None if even the lightest options weigh more than ``limit``.

    Raises:
        OutOfReachError: within ``limit``, the second sum is always larger than ``most``.
    """
    most += abs(most) * _ROUNDING
    free = choose(values, weights, limit, seconds=seconds, gap=gap)
    if free is None or _total(others, free) <= most:
        return free
    best = choose(others, weights, limit, seconds=seconds)
    if best is None or _total(others, best) > most:
        raise OutOfReachError(_total(others, best or free))
    limits = [limit + abs(limit) * _ROUNDING, most]
    room = list(limits)
    for _ in range(_ATTEMPTS):
        found = _solve(values, (weights, others), room, seconds, min(gap, _QUICK_GAP))
        if found is None:
            break
        # The solver's variables are whole within a tolerance, so sums may exceed a limit slightly.
        sums = [_total(table, found) for table in (weights, others)]
        excess = [total - bound for total, bound in zip(sums, limits, strict=True)]
        if max(excess) <= 0:
            return min(best, found, key=lambda chosen: _total(values, chosen))
        room = [bound - 2 * max(0.0, over) for bound, over in zip(room, excess, strict=True)]
    return best


def _total(table: Table, chosen: Sequence[int]) -> float:
    return math.fsum(row[index] for row, index in zip(table, chosen, strict=True))


def _solve(
    values: Table, tables: Sequence[Table], room: Sequence[float], seconds: float, gap: float
) -> list[int] | None:
    """Solve the integer program, whose variables are the options of all groups, 1 if chosen."""
    # scipy is slow to import, and only a mix needs it
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    owners = np.repeat(np.arange(len(values)), [len(row) for row in values])
    ones = csr_array((np.ones(len(owners)), (owners, np.arange(len(owners)))))
    constraints = [LinearConstraint(ones, 1, 1)]
    for table, bound in zip(tables, room, strict=True):
        # relative to the lightest options, so that the rows have magnitudes that HiGHS needs
        lightest = [min(row) for row in table]
        extra = np.array([w - low for row, low in zip(table, lightest, strict=True) for w in row])
        unit = _ROW_SCALE / max(extra.max(initial=0.0), 1e-300)
        free = (bound - math.fsum(lightest)) * unit
        constraints.append(LinearConstraint(csr_array(extra[None] * unit), -np.inf, free))
    flat = np.array([value for row in values for value in row])
    result: Any = milp(
        flat * (_VALUE_SCALE / max(flat.sum(), 1e-300)),
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": gap, "time_limit": seconds},
    )
    if result.x is None:
        return None
    parts = np.split(result.x, np.cumsum([len(row) for row in values])[:-1])
    return [int(part.argmax()) for part in parts]
