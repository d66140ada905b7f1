"""Several ranks as a group: they meet, exchange words, and end together."""

from __future__ import annotations

import json
import os
import signal
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as NotYet
from types import TracebackType
from typing import Any, TypeVar

import torch
from typing_extensions import Self

from .. import VERSION
from ..errors import OtherRankError, RankError
from ..progress import OnProgress
from ..text import shorten
from .alone import Ranks
from .link import PULSE_SECONDS, Ask, Link, open_store
from .place import Place
from .pulse import FAILURE, Failure, Pulse, alive

_T = TypeVar("_T")
# A rank that does not answer for so long is lost. Its thread answers while it computes.
_SILENT_SECONDS = 60.0
# Ranks import torch before they meet, perhaps from a slow disk.
_MEET_SECONDS = 300.0
_FAREWELL_SECONDS = 3.0
_INTERRUPTED = "interrupted"


class RankGroup(Ranks):
    """This process as one of several.

    Attributes:
        version: of the package; ranks that work together have the same.
    """

    version = VERSION

    def __init__(
        self,
        place: Place,
        *,
        silent_seconds: float = _SILENT_SECONDS,
        meet_seconds: float = _MEET_SECONDS,
        connect: Callable[[], Any] = open_store,
        before_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a place; `__enter__` connects to the store of all, and meets the others.

        ``before_waiting`` may raise to stop this rank and so all of them.
        """
        self.rank, self.size = place.rank, place.size
        self.label = f"rank {place.rank}: "
        self._machine, self._local_rank = place.machine, place.local_rank
        self._silent_seconds, self._meet_seconds = silent_seconds, meet_seconds
        self._connect, self._before_waiting = connect, before_waiting
        self._pulse = Pulse(place.rank)
        self._gathered = 0
        self._shown: tuple[OnProgress, int, int] | None = None

    def __enter__(self) -> Self:
        """Meet the others.

        Raises:
            RankError: not all came in time, or they are of different versions.
        """
        self._link = Link(self._connect(), self._pulse)
        try:
            self._meet()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until all have finished, or tell them what went wrong here.

        Raises:
            OtherRankError: instead of this rank's own error, if another rank failed before.
        """
        try:
            if error is not None:
                self._fail(error)
                return
            try:
                self.gather("end", None)
            except BaseException as late:
                self._fail(late)
                raise
        finally:
            self._leave()

    def gather(self, what: str, mine: Any) -> list[Any]:
        """Return the values of all ranks; see `Ranks.gather`."""
        self._gathered += 1
        keys = [f"{self._gathered} {what}/{rank}" for rank in range(self.size)]
        packed = zlib.compress(json.dumps(mine).encode(), 1)  # the store refuses more than 8 MB
        self._ask(lambda store: store.set(keys[self.rank], packed))
        while not self._has(keys):
            self._wait()
        values = self._ask(lambda store: [store.get(key) for key in keys])
        return [json.loads(zlib.decompress(value)) for value in values]

    def device(self, device: torch.device) -> torch.device:
        """Return this rank's own GPU; see `Ranks.device`.

        Ranks beyond the number of GPUs share them. A launcher may also show each rank only one.
        """
        if device.type != "cuda":
            return device
        own = torch.device("cuda", self._local_rank % torch.cuda.device_count())
        torch.cuda.set_device(own)  # kernels run on the current device
        return own

    def counted(self, on_progress: OnProgress | None) -> OnProgress:
        """Return a callback for this rank's part; see `Ranks.counted`."""

        def advance(done: int, total: int, text: str) -> None:
            self._check()
            self._pulse.done = done
            if on_progress is not None and self.is_first:
                everyone = min(total, done + self._pulse.done_by_others())
                self._shown = on_progress, everyone, total
                on_progress(everyone, total, text)

        return advance

    def _meet(self) -> None:
        until = time.monotonic() + self._meet_seconds
        here = [f"here/{rank}" for rank in range(self.size)]
        self._ask(lambda store: store.set(here[self.rank], self.version))
        while not self._has(here):
            if time.monotonic() > until:
                missing = [rank for rank, key in enumerate(here) if not self._has([key])]
                raise RankError(
                    f"{_named(missing)} did not start within {self._meet_seconds:.0f} s; start all "
                    f"{self.size} ranks"
                )
            self._wait()
        versions = {text.decode() for text in self._ask(lambda s: [s.get(key) for key in here])}
        if len(versions) > 1:
            raise RankError(
                f"the ranks run different versions of NVFP4 Foundry ({', '.join(sorted(versions))})"
                "; install the same one on every machine"
            )
        # The first rank watches all others, and they watch the first one.
        self._pulse.watch(range(1, self.size) if self.is_first else (0,))

    def _wait(self) -> None:
        """Wait a moment for the others, and show how far they are."""
        self._before_waiting()
        self._check()
        if self._shown is not None:
            on_progress, before, total = self._shown
            everyone = min(total, self._pulse.done + self._pulse.done_by_others())
            if everyone > before:
                self._shown = on_progress, everyone, total
                on_progress(everyone, total, "waiting for the other ranks")
        time.sleep(PULSE_SECONDS / 5)

    def _check(self) -> None:
        """Raise `RankError` if another rank failed or is lost, or the store is out of reach."""
        failure = self._pulse.failure
        if failure is not None:
            raise OtherRankError(failure.rank, failure.message)
        self._check_link()
        lost = self._pulse.silent_since(time.monotonic() - self._silent_seconds)
        if lost:
            raise self._silence(_named(lost))

    def _check_link(self) -> None:
        if self._link.broken is not None:
            raise RankError(
                f"the connection to the other ranks broke: {self._link.broken}. The torchrun or "
                "the rank that connects them has ended"
            )
        if self._link.beaten < time.monotonic() - self._silent_seconds:
            raise self._silence("the store that connects the ranks")

    def _silence(self, who: str) -> RankError:
        return RankError(
            f"{who} has not answered for {self._silent_seconds:.0f} s: the process was killed, or "
            "its machine or the network is down"
        )

    def _ask(self, question: Ask[_T]) -> _T:
        """Return the store's answer; raises `RankError` if none comes."""
        answer = self._link.ask(question)
        while True:
            try:
                return answer.result(timeout=PULSE_SECONDS)
            except NotYet:
                self._check_link()
            except ConnectionError:
                self._check_link()
                raise

    def _has(self, keys: Sequence[str]) -> bool:
        return self._ask(lambda store: store.check(list(keys)))

    def _fail(self, error: BaseException) -> None:
        """Agree with the others on the one failure, and on who on this machine reports it.

        Raises:
            OtherRankError: it is another rank's, or another rank died.
        """
        claim, rank = f"reported on {self._machine}", str(self.rank)
        try:
            own = self._pulse.failure or self._describe(error)
            agreed = Failure.loads(self._ask(lambda s: s.compare_set(FAILURE, "", own.dumps())))
            self.speaks = self._ask(lambda s: s.compare_set(claim, "", rank)) == rank.encode()
        except RankError:
            return  # the others are out of reach: each rank reports what it knows
        if agreed.rank == self.rank or (
            isinstance(error, KeyboardInterrupt) and agreed.message == _INTERRUPTED
        ):
            return
        if not isinstance(error, OtherRankError):
            raise OtherRankError(agreed.rank, agreed.message) from error

    def _describe(self, error: BaseException) -> Failure:
        """Return what to tell the others."""
        if isinstance(error, KeyboardInterrupt):
            dead = self._dead_ranks() if error.args == (signal.SIGTERM,) else []
            if not dead:
                return Failure(self.rank, _INTERRUPTED)
            return Failure(
                dead[0],
                "ended without a word: it was killed, by hand or because memory ran out; no "
                "unfinished file was left",
            )
        return Failure(self.rank, str(error) or repr(error))

    def _dead_ranks(self) -> list[int]:
        """Return who neither lives nor has said that it ends. torchrun stops all if one died."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        first = {rank: self._beat(rank) for rank in others}
        until = time.monotonic() + 6 * PULSE_SECONDS
        while others and time.monotonic() < until:
            time.sleep(PULSE_SECONDS / 2)
            others = [r for r in others if not self._has([_over(r)]) and self._beat(r) == first[r]]
        return others

    def _beat(self, rank: int) -> bytes:
        key = alive(rank)
        return self._ask(lambda store: store.get(key) if store.check([key]) else b"")

    def _leave(self) -> None:
        """End the connection; who hosts the store waits until the others have left it."""
        try:
            self._ask(lambda store: store.set(_over(self.rank), ""))
            hosts = self.is_first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
            until = time.monotonic() + _FAREWELL_SECONDS
            everyone = [_over(rank) for rank in range(self.size)]
            while hosts and time.monotonic() < until and not self._has(everyone):
                time.sleep(PULSE_SECONDS / 5)
        except RankError:
            pass  # they notice by themselves
        finally:
            self._link.stop()


def _over(rank: int) -> str:
    return f"over/{rank}"


def _named(ranks: Sequence[int]) -> str:
    """Return ``rank 1`` or ``ranks 1, 2 and 5 more``."""
    return ("rank " if len(ranks) == 1 else "ranks ") + shorten([str(rank) for rank in ranks])
