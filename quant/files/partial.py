"""Unfinished files: each is beside its target, under a name that says which process writes it."""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from pathlib import Path
from typing import BinaryIO

from .publish import publish
from .running import Writer, this_process

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None

# Of the target's name, so much is in that of the partial file. File systems allow 255 bytes, and
# Windows 260 characters for the whole path.
_NAME_BYTES = 60
_PARTIAL = re.compile(
    r"\..*\.(?P<writer>[0-9a-f]{20}-[0-9a-f]+-[0-9a-f]+)-[0-9a-f]{8}\.partial", re.S
)
# Names of earlier versions do not tell the machine: of another one, they may still be written.
_EARLIER = re.compile(r"(\d+-[0-9a-f]{8}|[0-9a-f]{32})\.partial|[0-9a-f]{32}\.tmp")
_EARLIER_SECONDS = 24 * 3600


class Partial:
    """A new file that becomes ``target`` or vanishes.

    Attributes:
        target: the file to write, with all links followed.
        path: the unfinished file.
    """

    def __init__(self, target: Path) -> None:
        """Choose the name; nothing is made yet."""
        self.target = target
        name = os.fsencode(target.name)[:_NAME_BYTES].decode(errors="ignore")
        token = f"{this_process()}-{uuid.uuid4().hex[:8]}"
        self.path = target.with_name(f".{name}.{token}.partial")
        self._file: BinaryIO | None = None
        self._mode = 0

    def open(self, buffering: int = -1) -> BinaryIO:
        """Make the file and return it, open for writing."""
        self._file = self.path.open("xb", buffering=buffering)
        self._mode = os.fstat(self._file.fileno()).st_mode
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._file

    def publish(self, *, overwrite: bool) -> None:
        """Sync the file to disk and give it its name, and the permissions of the file it replaces.

        Raises:
            FileError: the target exists and must not be replaced, or is in use.
            OSError: the disk failed.
        """
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        if os.name == "nt":
            self._file.close()  # an open file cannot be renamed there
        _set_permissions(self.path, self._mode, self.target if overwrite else None)
        publish(self.path, self.target, overwrite=overwrite)

    def remove(self) -> None:
        """Close and delete the file, unless it was published."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written cannot be flushed
                self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def remove_leftovers(target: Path) -> None:
    """Delete the unfinished files in the folder of a target whose processes died.

    Those of other machines are kept. Those of earlier versions, whose names do not tell the
    machine, are deleted if they are of this target and nobody has written to them for a day.
    """
    # No pattern with the name: `re` keeps hundreds of patterns, and every report has its own name.
    start = f".{target.name}."
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if not entry.name.endswith((".partial", ".tmp")):
                continue
            with contextlib.suppress(OSError):
                if found := _PARTIAL.fullmatch(entry.name):
                    _remove_if_dead(Path(entry.path), found["writer"])
                elif _is_earlier(entry.name, start) and _is_older(entry, _EARLIER_SECONDS):
                    os.unlink(entry.path)


def _is_earlier(name: str, start: str) -> bool:
    return name.startswith(start) and _EARLIER.fullmatch(name, len(start)) is not None


def _is_older(entry: os.DirEntry[str], seconds: float) -> bool:
    return entry.stat().st_mtime < time.time() - seconds


def _remove_if_dead(path: Path, text: str) -> None:
    writer = Writer.parse(text)
    if writer is None or path.is_symlink() or not path.is_file():
        return
    with path.open("rb+") as file:
        last_write = os.fstat(file.fileno()).st_mtime
        dead = writer.is_dead(last_write=last_write, locked=_is_locked(file))
        if dead and os.name != "nt":
            path.unlink()  # while nobody else can get the lock
    if dead and os.name == "nt":
        path.unlink(missing_ok=True)


def _is_locked(file: BinaryIO) -> bool | None:
    """Tell whether another process writes a file; None if that cannot be known."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _set_permissions(path: Path, mode: int, replaced: Path | None) -> None:
    """Give a file the permissions of a new one, or those and the owner of the one it replaces."""
    with contextlib.suppress(FileNotFoundError):
        if replaced is not None:
            found = replaced.stat()
            mode = found.st_mode
            own = path.stat()
            if (own.st_uid, own.st_gid) != (found.st_uid, found.st_gid):
                with contextlib.suppress(OSError):  # only root may give files away
                    os.chown(path, found.st_uid, found.st_gid)
    if path.stat().st_mode != mode:
        with contextlib.suppress(OSError):  # a file system without permissions
            path.chmod(mode & 0o7777)
