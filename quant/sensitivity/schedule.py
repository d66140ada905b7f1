"""Choose the steps of a sampling to probe: a few, spread evenly, each guidance branch once."""

from __future__ import annotations

from collections.abc import Sequence


class ProbeSchedule:
    """Choose the model calls to probe in each sampling. `begin` announces a sampling."""

    def __init__(self, sigmas_wanted: int):
        """Probe this many steps of every sampling (all of them if it has fewer)."""
        self.sigmas_wanted = sigmas_wanted
        self._sigmas: tuple[float, ...] = ()
        self._chosen: frozenset[int] = frozenset()
        self._seen: set[tuple[int, tuple[int, ...]]] = set()

    def begin(self, sigmas: Sequence[float]) -> None:
        """Begin a sampling over these sigmas, in descending order and including the final one."""
        self._sigmas = tuple(sigmas[:-1])
        self._chosen = frozenset(spread_steps(len(self._sigmas), self.sigmas_wanted))
        self._seen.clear()

    def wants(self, sigma: float, branches: Sequence[int] = ()) -> bool:
        """Return whether to probe this call. A call for which this is True counts as probed.

        A sampler may call the model between two sigmas, or several times at one sigma. Only the
        first call in a chosen step is probed, once for each combination of guidance ``branches``.
        """
        key = (self._step_at(sigma), tuple(branches))
        if key[0] not in self._chosen or key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _step_at(self, sigma: float) -> int:
        """Return the step with the nearest sigma."""
        steps = range(len(self._sigmas))
        return min(steps, key=lambda step: abs(self._sigmas[step] - sigma), default=-1)


def spread_steps(steps: int, count: int) -> tuple[int, ...]:
    """Return ``count`` of ``steps`` steps (all if there are fewer): the middles of equal parts."""
    count = min(steps, count)
    return tuple((2 * part + 1) * steps // (2 * count) for part in range(count))


def short_schedule(steps: int, count: int) -> tuple[int, ...]:
    """Return the sigmas that shorten a sampling to ``count`` steps (all if it has fewer).

    The result are indices of its ``steps + 1`` sigmas in ascending order, evenly spread, with the
    first and the last.
    """
    count = min(steps, max(1, count))
    return tuple(step * steps // count for step in range(count + 1)) if steps > 0 else ()
