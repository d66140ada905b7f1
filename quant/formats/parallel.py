"""Process the chunks of one weight on several cores.

Torch splits every single operation over the cores and then waits for the slowest core. A chunk
needs dozens of operations of a fraction of a millisecond each. On a busy machine, the waiting takes
far longer than the work. Here each core processes whole chunks instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

# More workers would wait for the interpreter, and each worker needs its own buffers.
_MOST_WORKERS = 8

ChunkLoop = Callable[[Iterable[slice]], None]


def share_chunks(loop: ChunkLoop, chunks: Sequence[slice], device: torch.device) -> None:
    """Run ``loop`` on several threads that take their chunks from one supply.

    Args:
        loop: processes the chunks that it gets, in any order, with its own buffers. Each chunk
            must write its results to a different place.
        chunks: the chunks; each is processed once.
        device: the device of the data. On GPUs and under `torch.set_num_threads(1)`, ``loop`` runs
            in this thread.

    Raises:
        Exception: the first error of ``loop``. The remaining chunks are then dropped.
    """
    workers = min(torch.get_num_threads(), _MOST_WORKERS)
    if device.type != "cpu" or workers == 1 or len(chunks) < 2:
        loop(chunks)
        return
    supply = _Supply(chunks)
    inference = torch.is_inference_mode_enabled()  # each thread has its own mode

    def work() -> None:
        try:
            with torch.inference_mode(inference):
                loop(supply)
        except BaseException:
            supply.stop()
            raise

    futures = [_pool(workers).submit(work) for _ in range(min(workers, len(chunks)))]
    try:
        for future in futures:
            future.result()
    finally:
        supply.stop()


class _Supply:
    """An iterator that several threads can use at once."""

    def __init__(self, chunks: Sequence[slice]):
        self._chunks = iter(chunks)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[slice]:
        return self

    def __next__(self) -> slice:
        with self._lock:
            return next(self._chunks)

    def stop(self) -> None:
        with self._lock:
            self._chunks = iter(())


@lru_cache(maxsize=1)
def _pool(workers: int) -> ThreadPoolExecutor:
    """Return threads on which torch does not split operations. Other threads are not affected."""
    started = threading.Barrier(workers)

    def start() -> None:
        torch.get_num_threads()  # the first use in a thread resets the number, so do it first
        torch.set_num_threads(1)
        started.wait()

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "chunks")
    for future in [pool.submit(start) for _ in range(workers)]:
        future.result()
    torch.set_num_threads(before)
    return pool
