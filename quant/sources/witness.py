"""Notice that a file changed while it was read."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO

from ..errors import SourceError

# Parts of the file whose content is compared, and the bytes of each. The first one is the header.
_PROBES, _PROBE_BYTES = 33, 4096


class FileWitness:
    """Remembers a file as it was opened: size, time, identity, and the content of a few places.

    The time alone is not enough. Some file systems count it in seconds, and tools set it back.

    Args:
        path: the file.
        file: the same file, opened without a buffer. Others may read it as well.
    """

    def __init__(self, path: Path, file: BinaryIO):
        self._path, self._file = path, file
        self._before = _state(file)
        self._content = self._probe()

    def require_unchanged(self) -> None:
        """Compare the file with what it was.

        A file that was deleted is fine: what is open keeps its content.

        Raises:
            SourceError: it changed, or another file has its name now.
        """
        change = self._change()
        if change is not None:
            raise SourceError(
                f"{self._path} {change} while it was read, so the result would mix two states of "
                "it; wait until whatever writes the file has finished, and start again"
            )

    def _change(self) -> str | None:
        now = _state(self._file)
        if now[0] != self._before[0]:
            return f"changed its size from {self._before[0]} to {now[0]} bytes"
        if now != self._before or self._probe() != self._content:
            return "was written to"
        try:
            replaced = not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return None
        return "was replaced by another file" if replaced else None

    def _probe(self) -> int:
        """Return the checksum of the header's beginning and of places all over the file."""
        last = max(0, self._before[0] - _PROBE_BYTES)
        found = 0
        for number in range(_PROBES):
            self._file.seek(last * number // (_PROBES - 1))
            found = zlib.crc32(self._file.read(_PROBE_BYTES), found)
        return found


def _state(file: BinaryIO) -> tuple[int, int]:
    """Return size and time of the last change."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns
