"""The files beside a target that keep the finished layers of a stopped run, and their locks."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import BinaryIO

from ..text import format_bytes
from .target import final_path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # elsewhere
    msvcrt = None

#: Characters of a key, which are hexadecimal digits.
KEY_LENGTH = 16
# Of the target's name, so much is in that of the file; file systems allow 255 bytes.
_NAME_BYTES = 60
# Windows locks ranges of bytes, so this one is where no short file has any. Its C library counts
# up to 2 GiB; in a longer file, the owner of the lock still reads and writes the byte.
_LOCKED_BYTE = (1 << 31) - 2
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK, errno.EWOULDBLOCK)


def resumable_path(target: Path, key: str, rank: int = 0) -> Path:
    """Return the file that keeps a rank's layers of a target; ``key`` tells settings apart."""
    target = final_path(target)
    part = f"-{rank}" if rank else ""
    return target.with_name(f".{_shortened(target)}.{key}{part}.resumable")


def rank_of(path: Path) -> int:
    """Return the rank that wrote such a file."""
    return int(path.suffixes[-2].partition("-")[2] or 0)


def resumable_files(target: Path) -> list[Path]:
    """Return the files with finished layers of a target, of any settings."""
    target = final_path(target)
    key = rf"[0-9a-f]{{{KEY_LENGTH}}}(-[1-9]\d*)?"
    name = re.compile(rf"\.{re.escape(_shortened(target))}\.{key}\.resumable")
    try:
        return sorted(f for f in target.parent.iterdir() if name.fullmatch(f.name) and f.is_file())
    except OSError:
        return []


def describe_kept(target: Path) -> str:
    """Return where the finished layers of a target are kept and how large they are, or ""."""
    parts = []
    for path in resumable_files(target):
        with contextlib.suppress(OSError):
            if size := path.stat().st_size:
                parts.append(f"{path} ({format_bytes(size)})")
    return f"finished layers are kept in {' and '.join(parts)}" if parts else ""


def remove_resumable(target: Path, *, keep: str | None = None) -> int:
    """Delete such files that no run writes, but those of one key; return how many bytes they had.

    A file system without locks does not tell which files are written, so the key is needed.
    """
    removed = 0
    for found in resumable_files(target):
        if keep is not None and found == resumable_path(target, keep, rank_of(found)):
            continue
        with contextlib.suppress(OSError):
            with found.open("r+b") as file:
                lock(file)
                size = os.fstat(file.fileno()).st_size
                if os.name != "nt":
                    found.unlink()  # while nobody else can get the lock
            found.unlink(missing_ok=True)  # Windows cannot delete an open file
            removed += size
    return removed


def lock(file: BinaryIO) -> None:
    """Lock an open file until it is closed. A file system without locks gives none.

    Raises:
        OSError: another run holds the lock.
    """
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        if error.errno in _HELD:
            raise
    finally:
        file.seek(0)


def _shortened(target: Path) -> str:
    return os.fsencode(target.name)[:_NAME_BYTES].decode(errors="ignore")
