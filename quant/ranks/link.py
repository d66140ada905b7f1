"""The connection to the store that all ranks share, on a thread of its own.

A call to the store may block for minutes if a machine is lost. So the work never waits for one
without looking at signals and at the clock.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar

from ..errors import RankError

_T = TypeVar("_T")
Ask = Callable[[Any], _T]

PULSE_SECONDS = 0.25
_TIMEOUT = timedelta(seconds=60)


def open_store() -> Any:
    """Return the store that the environment names; the first rank hosts it unless torchrun does.

    Raises:
        RankError: this build of torch has no distributed package, or the store is out of reach.
    """
    import torch.distributed

    if not torch.distributed.is_available():
        raise RankError(
            "this build of torch has no torch.distributed, which several ranks need; install "
            "another build, or start nvfp4 without torchrun"
        )
    from torch.distributed.rendezvous import rendezvous

    try:
        return next(iter(rendezvous("env://", timeout=_TIMEOUT)))[0]
    except (RuntimeError, ValueError, OSError) as error:
        where = ":".join(os.environ.get(n, "?") for n in ("MASTER_ADDR", "MASTER_PORT"))
        raise RankError(
            f"cannot reach the other ranks at {where}: {error}. Start them with torchrun, with the "
            "same address on every machine"
        ) from error


class Link:
    """A thread that makes all calls to the store, and calls ``pulse`` a few times a second.

    Attributes:
        beaten: `time.monotonic` after the latest pulse.
        broken: the error that ended the connection; None while it works.
    """

    def __init__(self, store: Any, pulse: Callable[[Any], None]) -> None:
        """Start the thread."""
        self.beaten = time.monotonic()
        self.broken: Exception | None = None
        self._store, self._pulse = store, pulse
        self._asked: queue.SimpleQueue[tuple[Ask[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="ranks", daemon=True)
        self._thread.start()

    def ask(self, question: Ask[_T]) -> Future[_T]:
        """Return the answer of the store, when it comes."""
        answer: Future[_T] = Future()
        self._asked.put((question, answer))
        return answer

    def stop(self) -> None:
        """End the thread, unless the store keeps it waiting."""
        self._asked.put(None)
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        due = time.monotonic()
        while True:
            try:
                asked = self._asked.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                with contextlib.suppress(ConnectionError):  # `broken` says so
                    self._call(self._pulse)
                self.beaten = time.monotonic()
                due = self.beaten + PULSE_SECONDS
                continue
            if asked is None:
                return
            question, answer = asked
            try:
                answer.set_result(self._call(question))
            except Exception as error:
                answer.set_exception(error)

    def _call(self, question: Ask[_T]) -> _T:
        """Ask the store. Once it failed, it is not asked again.

        Raises:
            ConnectionError: it failed.
        """
        if self.broken is None:
            try:
                return question(self._store)
            except Exception as error:  # torch raises errors of several kinds
                self.broken = error
        raise ConnectionError(str(self.broken))
