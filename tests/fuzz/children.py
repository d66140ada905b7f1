"""Give batches of inputs to child processes: one that dies or hangs counts for its input."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .one_input import MOST_SECONDS, run_input
from .specimens import Specimens

# A child that goes on to no other input for so long hangs in C code, where no signal reaches it.
_SILENT = 20 * MOST_SECONDS
_LISTENS = 1.0  # seconds from one look at the children to the next


@dataclass(frozen=True)
class Batch:
    """Inputs of one parser, each as the seed that makes it."""

    name: str
    seeds: list[str]


@dataclass
class Result:
    """What a child did: how many inputs, in how many seconds of a processor, and the problems.

    Each problem is the seed and what `run_input` says of it.
    """

    name: str
    inputs: int = 0
    seconds: float = 0.0
    problems: list[tuple[str, str]] = field(default_factory=list)


def run_batches(batches: Iterator[Batch], valid: Specimens, processes: int) -> Iterator[Result]:
    """Yield the result of each child. So many run at once."""
    children: list[_Child] = []
    try:
        while True:
            while len(children) < processes and (batch := next(batches, None)) is not None:
                children.append(_Child(batch, valid))
            if not children:
                return
            wait([child.answers for child in children], timeout=_LISTENS)
            for child in list(children):
                child.listen()
                if child.ended:
                    children.remove(child)
                    yield child.result
                    if rest := child.rest():
                        children.append(_Child(rest, valid))
    finally:
        for child in children:
            child.stop()


class _Child:
    """A process that works on a batch."""

    def __init__(self, batch: Batch, valid: Specimens) -> None:
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self._batch = batch
        self._at = context.Value("q", 0, lock=False)  # the input that it works on
        self.answers, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_serve, args=(batch, valid, self._at, theirs))
        self._process.start()
        theirs.close()
        self._last, self._silent, self._listened = 0, 0.0, time.monotonic()
        self.result = Result(batch.name)
        self.ended = False

    def listen(self) -> None:
        """Take what it has found, and see whether it is at its end, dead, or hangs."""
        now = time.monotonic()
        self._silent += min(now - self._listened, _LISTENS)  # this process may have been stopped
        self._listened = now
        if self._at.value != self._last:
            self._last, self._silent = self._at.value, 0.0
        try:
            while self.answers.poll():
                answer = self.answers.recv()
                if isinstance(answer, float):
                    self.result.seconds = answer
                else:
                    self.result.problems.append(answer)
        except (EOFError, ConnectionError):
            self._end("unnamed: the process died")
            return
        if self._silent > _SILENT:
            self._end(f"time: hangs for over {_SILENT} s")

    def _end(self, why: str) -> None:
        self.stop()
        self.result.inputs = self._at.value
        if self._at.value < len(self._batch.seeds):
            self.result.problems.append((self._batch.seeds[self._at.value], why))
            self.result.inputs += 1
        self.ended = True

    def rest(self) -> Batch | None:
        """Return what an ended child has not worked on."""
        seeds = self._batch.seeds[self.result.inputs :]
        return Batch(self._batch.name, seeds) if seeds else None

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _serve(batch: Batch, valid: Specimens, at: Any, answers: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    began = time.process_time()
    with tempfile.TemporaryDirectory(dir=valid.folder) as folder:
        for index, seed in enumerate(batch.seeds):
            at.value = index
            if problem := run_input(batch.name, seed, valid, Path(folder, "input")):
                answers.send((seed, problem))
    answers.send(time.process_time() - began)
    at.value = len(batch.seeds)
