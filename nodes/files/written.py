"""The files that nodes wrote in this session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Size and time of the last change of a file, in bytes and nanoseconds.
FileState = tuple[int, int]


class WrittenFiles:
    """The files that nodes wrote, so that a node runs again when its file is gone.

    ComfyUI does not run a node whose inputs are the same as before. So the fingerprint of a node
    that writes a file counts how often the file it wrote last was deleted or replaced.
    """

    def __init__(self) -> None:
        self._written: dict[tuple[Any, ...], tuple[Path, FileState | None]] = {}
        self._lost: dict[tuple[Any, ...], int] = {}

    def add(self, key: tuple[Any, ...], path: Path) -> None:
        """Remember a file that was written for these inputs."""
        self._written[key] = (path, state_of(path))

    def unchanged(self, key: tuple[Any, ...]) -> Path | None:
        """Return the file that was written last for these inputs, if it is still as it was."""
        path, state = self._written.get(key, (None, None))
        return path if path is not None and state_of(path) == state else None

    def times_lost(self, key: tuple[Any, ...]) -> int:
        """Return how often a file that was written for these inputs was gone or replaced."""
        written = self._written.get(key)
        if written is not None and state_of(written[0]) != written[1]:
            del self._written[key]
            self._lost[key] = self._lost.get(key, 0) + 1
        return self._lost.get(key, 0)


def state_of(path: Path) -> FileState | None:
    """Return the state of a file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


#: Shared by all nodes that write files.
WRITTEN = WrittenFiles()
