"""Which steps of a sampling are probed: a few, spread evenly, each branch once."""

from __future__ import annotations

from collections.abc import Sequence


class ProbeSchedule:
    """Picks the calls to probe in each sampling; `begin` announces one."""

    def __init__(self, sigmas_wanted: int):
        """Probe at this many steps of every sampling (all of them when it has fewer)."""
        self.sigmas_wanted = sigmas_wanted
        self._sigmas: tuple[float, ...] = ()
        self._chosen: frozenset[int] = frozenset()
        self._seen: set[tuple[int, tuple[int, ...]]] = set()

    def begin(self, sigmas: Sequence[float]) -> None:
        """Begin a sampling over these sigmas, falling, the last one where it ends."""
        self._sigmas = tuple(sigmas[:-1])
        self._chosen = frozenset(spread_steps(len(self._sigmas), self.sigmas_wanted))
        self._seen.clear()

    def wants(self, sigma: float, branches: Sequence[int] = ()) -> bool:
        """Whether to probe this call; asking for one that is wanted counts as having probed it.

        A sampler may call the model between two sigmas, or several times at one: the first call
        in a chosen step counts, once for each combination of guidance ``branches``.
        """
        key = (self._step_at(sigma), tuple(branches))
        if key[0] not in self._chosen or key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _step_at(self, sigma: float) -> int:
        """Return the step whose sigma is the nearest."""
        steps = range(len(self._sigmas))
        return min(steps, key=lambda step: abs(self._sigmas[step] - sigma), default=-1)


def spread_steps(steps: int, count: int) -> tuple[int, ...]:
    """Return ``count`` of ``steps`` steps (all if there are fewer): middles of equal parts."""
    count = min(steps, count)
    return tuple((2 * part + 1) * steps // (2 * count) for part in range(count))


def short_schedule(steps: int, count: int) -> tuple[int, ...]:
    """Return which sigmas of a sampling make one of ``count`` steps (all if it has fewer).

    Indices of its ``steps + 1`` sigmas, rising: evenly spread, both ends among them.
    """
    count = min(steps, max(1, count))
    return tuple(step * steps // count for step in range(count + 1)) if steps > 0 else ()
