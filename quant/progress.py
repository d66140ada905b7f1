"""The callback that reports the progress of long work, and how much time is left."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

#: Called with the amount done, the total amount (in bytes, layers or runs, depending on the
#: function) and what was just done, such as ``layer 12 of 300: blocks.3.ffn.0`` (see `numbered`).
#: It may raise an exception to stop the work.
OnProgress = Callable[[int, int, str], None]

_WINDOW = 40
_FEWEST_STEPS, _FEWEST_SECONDS = 4, 3.0
# Share of the steps that is left out at either end, by pace.
_TRIMMED = 0.1


def numbered(kind: str, number: int, count: int, name: str) -> str:
    """Return the text of one step of ``count``: ``layer 12 of 300: blocks.3.ffn.0``."""
    return f"{kind} {number} of {count}: {name}"


class RemainingTime:
    """Estimate the time that is left from the pace of the latest steps.

    The pace is the mean of the last 40 steps, in seconds per amount done, without the fastest and
    the slowest tenth: one step that waits for a disk does not change the estimate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, done: int = 0) -> None:
        """Start the clock, which returns seconds, with ``done`` already done before."""
        self._clock = clock
        self._began = self._last = clock()
        self._done = done
        self._steps: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def update(self, done: int, total: int) -> float | None:
        """Return the seconds left after ``done`` of ``total``; None while the pace is unknown.

        The pace is unknown in the first 3 seconds and the first 4 steps.
        """
        now = self._clock()
        if done > self._done:
            self._steps.append((now - self._last, done - self._done))
            self._done, self._last = done, now
        if len(self._steps) < _FEWEST_STEPS or now - self._began < _FEWEST_SECONDS:
            return None
        by_pace = sorted(self._steps, key=lambda step: step[0] / step[1])
        cut = math.ceil(_TRIMMED * len(by_pace))
        kept = by_pace[cut:-cut]
        seconds, amount = (sum(values) for values in zip(*kept, strict=True))
        return max(0, total - done) * seconds / amount


def format_seconds(seconds: float) -> str:
    """Return a duration to read: ``12 s``, ``1 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


class Throttle:
    """Let something happen at most once per interval."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start ready; ``clock`` returns seconds."""
        self._seconds, self._clock = seconds, clock
        self._latest = -math.inf

    def ready(self, *, force: bool = False) -> bool:
        """Return whether the interval is over, or True with ``force``; begin the next one if so."""
        now = self._clock()
        if not force and now - self._latest < self._seconds:
            return False
        self._latest = now
        return True


def progress_line(text: str, seconds_left: float | None) -> str:
    """Return a line of progress to show: ``text``, and the time left if it is known."""
    return text if seconds_left is None else f"{text}, {format_seconds(seconds_left)} left"
