"""Shorten a sampling to a few steps, spread evenly over its sigmas."""

from __future__ import annotations


def short_schedule(steps: int, count: int) -> tuple[int, ...]:
    """Return the sigmas that shorten a sampling to ``count`` steps (all if it has fewer).

    The result are indices of its ``steps + 1`` sigmas in ascending order, evenly spread, with the
    first and the last.
    """
    count = min(steps, max(1, count))
    return tuple(step * steps // count for step in range(count + 1)) if steps > 0 else ()
