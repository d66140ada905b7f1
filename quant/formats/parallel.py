"""Chunks of one weight on several cores.

Torch splits every single operation over the cores and waits for the slowest at its end. A chunk
takes dozens of operations of a fraction of a millisecond: on a machine that does anything else
the waiting takes far longer than the work. Here each core takes whole chunks instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

# More would wait for each other in the interpreter, and each holds buffers of its own.
_MOST_WORKERS = 8

ChunkLoop = Callable[[Iterable[slice]], None]


def share_chunks(loop: ChunkLoop, chunks: Sequence[slice], device: torch.device) -> None:
    """Run ``loop`` on several threads that draw their chunks from one supply.

    Args:
        loop: works through the chunks it is given, in any order, with buffers of its own; writes
            its results where no other chunk does.
        chunks: each is drawn once.
        device: of the data; on GPUs, and under `torch.set_num_threads(1)`, ``loop`` simply runs.

    Raises:
        Exception: what ``loop`` raised first; the chunks not yet drawn are dropped then.
    """
    workers = min(torch.get_num_threads(), _MOST_WORKERS)
    if device.type != "cpu" or workers == 1 or len(chunks) < 2:
        loop(chunks)
        return
    supply = _Supply(chunks)
    inference = torch.is_inference_mode_enabled()  # per thread, and tensors remember it

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
    """An iterator that several threads may draw from."""

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
    """Return threads on which torch does not split operations; elsewhere it does as before."""
    started = threading.Barrier(workers)

    def start() -> None:
        torch.get_num_threads()  # the first use in a thread resets the number, later ones do not
        torch.set_num_threads(1)
        started.wait()

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "chunks")
    for future in [pool.submit(start) for _ in range(workers)]:
        future.result()
    torch.set_num_threads(before)
    return pool
