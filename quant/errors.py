"""One exception class per stage of the pipeline, all derived from ``FoundryError``.

Messages are for users: they say what is wrong, in which file or layer, and what to do.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from .text import printable

# What torch, CUDA and the loader of shared libraries say when memory is short.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "failed to map segment",
)


@dataclass(frozen=True)
class Remedy:
    """A setting that would avoid an error: what to call it, which setting, and its new value."""

    label: str
    setting: str
    value: str | bool


class FoundryError(Exception):
    """Base of all errors that the package raises on purpose.

    ``remedy`` is a setting that would avoid the error, if there is one. The message names it too.
    Control characters in the message, which names from files may bring, are escaped.
    """

    def __init__(self, message: str, *, remedy: Remedy | None = None) -> None:
        super().__init__(printable(message))
        self.remedy = remedy


class UsageError(FoundryError):
    """Arguments of the command line are wrong or contradict each other (exit code 2)."""


class FileError(FoundryError):
    """A file cannot be written, or what should be read or written is not an ordinary file."""


class SourceError(FoundryError):
    """A source file is missing, malformed, ambiguous or not supported."""


class IncompleteError(SourceError):
    """A source holds only a part of a model: shards, blocks or tensors are missing."""


class RecipeError(FoundryError):
    """A recipe or preset is invalid or does not fit the model."""


class PlanError(FoundryError):
    """A recipe cannot be resolved against this model."""


class FormatError(FoundryError):
    """A weight cannot be stored in the requested format."""


class CalibrationError(FoundryError):
    """A calibration is missing, damaged, or of another model."""


class CheckpointError(FoundryError):
    """A checkpoint cannot be written or read back."""


class CompareError(FoundryError):
    """Two samples or checkpoints differ in kind, shape or model, and cannot be compared."""


class RankError(FoundryError):
    """Ranks that share a work cannot meet, or one of them is lost."""


class OtherRankError(RankError):
    """This rank stopped because another one failed; the message is the other's."""

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(f"rank {rank}: {message}")
        self.rank = rank


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, without importing torch, whose errors are of several kinds."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, (RuntimeError, ImportError, OSError)) and any(
        part in text for part in _OUT_OF_MEMORY
    )
