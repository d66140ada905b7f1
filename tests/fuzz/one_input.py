"""Run one mutated input: within its bounds of time and memory, or what it did instead."""

from __future__ import annotations

import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from random import Random

from nvfp4_foundry.quant.errors import FoundryError

from .parsers import FUZZERS
from .specimens import Specimens

#: Bounds of one input: seconds of a processor, which other work on the machine does not take, and
#: bytes beyond what the process had before.
MOST_SECONDS, MOST_BYTES = 5.0, 1 << 30


class TooLongError(BaseException):
    """An input took too long. Not an Exception, so that nothing under test catches it."""


def run_input(name: str, seed: str, valid: Specimens, folder: Path) -> str:
    """Return what is wrong with how an input was read; empty if it was read or refused by name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    before, began = _peak(), time.process_time()
    _alarm(MOST_SECONDS)
    try:
        FUZZERS[name][0](Random(seed), valid, folder)
    except FoundryError as error:
        if "out of memory" in str(error):
            return f"memory: {error}"
    except TooLongError:
        return f"time: over {MOST_SECONDS} s at {_place(sys.exc_info()[2])}"
    except Exception as error:
        where = _place(error.__traceback__)
        return f"unnamed: {type(error).__name__} at {where}: {str(error)[-300:]}"
    finally:
        _alarm(0)
    if time.process_time() - began > MOST_SECONDS:
        return f"time: {time.process_time() - began:.1f} s"
    grown = _peak() - before
    return f"memory: {grown / 1e9:.1f} GB more" if grown > MOST_BYTES else ""


def _alarm(seconds: float) -> None:
    if not hasattr(signal, "setitimer"):
        return  # Windows: only what ends is measured
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _too_long(*_: object) -> None:
    raise TooLongError


def _peak() -> int:
    """Return the peak of the memory of this process, in bytes; 0 where it is not told."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _place(found: object) -> str:
    """Return the last place in the package under test."""
    frames = traceback.extract_tb(found)  # type: ignore[arg-type]
    own = [f for f in frames if "/tests/" not in f.filename.replace("\\", "/")]
    chosen = (
        [f for f in own if "/quant/" in f.filename.replace("\\", "/")] or own or list(frames)
    )[-1:]
    return " ".join(f"{Path(f.filename).name}:{f.lineno}" for f in chosen)
