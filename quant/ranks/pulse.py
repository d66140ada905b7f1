"""What a rank shows of itself a few times a second, and hears of the others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

FAILURE = "failure"


@dataclass(frozen=True)
class Failure:
    """The failure that all ranks report, and the rank it is of."""

    rank: int
    message: str

    def dumps(self) -> str:
        """Return JSON that `loads` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: bytes) -> Failure:
        """Return the failure that `dumps` wrote."""
        return cls(**json.loads(text))


class Pulse:
    """Called with the store, on the thread of the `Link`.

    Attributes:
        done: the progress of this rank, in bytes, which the others hear of.
        failure: what another rank said that went wrong.
    """

    def __init__(self, rank: int) -> None:
        """Start without hearing of anyone."""
        self.done = 0
        self.failure: Failure | None = None
        self._rank = rank
        self._beats = 0
        # By rank: its latest beat, and when it was heard.
        self._heard: dict[int, tuple[bytes, float]] = {}

    def watch(self, ranks: Iterable[int]) -> None:
        """Hear of these ranks from now on."""
        self._heard = {rank: (b"", time.monotonic()) for rank in ranks}

    def __call__(self, store: Any) -> None:
        """Show that this rank lives, and hear of the others and of failures."""
        self._beats += 1
        store.set(alive(self._rank), f"{self._beats} {self.done}")
        if self.failure is None and store.check([FAILURE]):
            self.failure = Failure.loads(store.get(FAILURE))
        for rank, (before, _) in list(self._heard.items()):
            if store.check([alive(rank)]) and (beat := store.get(alive(rank))) != before:
                self._heard[rank] = beat, time.monotonic()

    def done_by_others(self) -> int:
        """Return the progress of those that are watched, in bytes."""
        return sum(int(beat.split()[1]) for beat, _ in self._heard.values() if beat)

    def silent_since(self, moment: float) -> list[int]:
        """Return those that were not heard of since this time of `time.monotonic`."""
        return [rank for rank, (_, heard) in self._heard.items() if heard < moment]


def alive(rank: int) -> str:
    """Return the key of a rank's beats."""
    return f"alive/{rank}"
