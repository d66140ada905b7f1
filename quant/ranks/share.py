"""Share pieces of work out to ranks so that all end at about the same time."""

from __future__ import annotations

from collections.abc import Sequence


def shares(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Return which pieces each rank does: indices in ascending order, every piece once.

    The dearest piece that is left goes to the rank with the least to do (Graham, "Bounds on
    multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969), which takes at most 4/3 of
    the best possible time. Every rank that calls this with the same costs gets the same answer.
    """
    owned: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0.0] * ranks
    for piece in sorted(range(len(costs)), key=lambda index: -costs[index]):
        rank = loads.index(min(loads))
        owned[rank].append(piece)
        loads[rank] += costs[piece]
    return [sorted(pieces) for pieces in owned]
