"""Write files completely or not at all. Everything that the pack writes is written here.

`written_whole` is for whatever writes to an open file, `write_text` and `write_json` for text. The
streaming writer of checkpoints uses the same `Partial`.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import FileError
from .partial import Partial, remove_leftovers
from .target import final_path

# Space to leave free on the disk beyond a large file itself.
_DISK_MARGIN = 64 << 20

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose a folder on another disk",
    errno.EDQUOT: "your quota on this disk is used up; free some space or choose another disk",
    errno.EFBIG: "the file would be larger than the file system or a limit of this system allows; "
    "choose another disk",
    errno.EROFS: "the disk can only be read; choose another folder",
    errno.EACCES: "you may not write there; choose another folder",
    errno.EPERM: "you may not write there; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EIO: "the disk failed; check it, and choose another one",
}


def check_target(target: Path, data_bytes: int = 0, *, overwrite: bool) -> Path:
    """Check, before the work, that a file of this size can be written.

    Removes what dead runs left in the folder. Returns the file that the target names once links are
    followed.

    Raises:
        FileError: the target is a folder, a device, a named pipe or a socket; it exists and must
            not be replaced, or is write-protected; its folder is missing or not writable; or the
            disk has too little free space.
    """
    path = _checked(target, overwrite=overwrite)
    # No rights or flags tell as surely that a file can be made as making one.
    partial = Partial(path)
    try:
        with failures_named(target):
            partial.open()
    finally:
        partial.remove()
    free = shutil.disk_usage(path.parent).free
    if free < data_bytes + min(data_bytes, _DISK_MARGIN):
        raise FileError(
            f"{target} needs {data_bytes / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free in "
            f"{path.parent}; free some space or choose a folder on another disk"
        )
    return path


def _checked(target: Path, *, overwrite: bool) -> Path:
    """Check everything but what only writing shows; return the file, links followed."""
    with failures_named(target):
        path = final_path(target)
    folder = path.parent
    if not folder.is_dir():
        raise FileError(f"{target}: the folder {folder} does not exist; create it")
    if path.exists():
        if not overwrite:
            raise FileError(f"{target} exists; choose another name or allow overwriting")
        if not os.access(path, os.W_OK):
            raise FileError(f"{target} is write-protected; choose another name")
    remove_leftovers(path)  # before the check for free space, which they take up
    return path


@contextmanager
def written_whole(target: Path, *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Yield a new file that becomes ``target`` when the block ends.

    If the block raises or the process dies, the target stays as it was. Until the block ends, an
    existing target keeps its content; afterwards the new file has its permissions.

    Raises:
        FileError: as `check_target`, or the file cannot be written, which every ``OSError`` of the
            block counts as.
    """
    partial = Partial(_checked(target, overwrite=overwrite))
    try:
        with failures_named(target):
            yield partial.open()
            partial.publish(overwrite=overwrite)
    finally:
        partial.remove()


def write_text(target: Path, text: str, *, overwrite: bool = True) -> None:
    """Write a text file in UTF-8 with the same line breaks on every system, as `written_whole`."""
    with written_whole(target, overwrite=overwrite) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def write_json(
    target: Path, data: Any, *, indent: int | None = None, overwrite: bool = True
) -> None:
    """Write JSON and a line break, as `written_whole`."""
    write_text(target, f"{json.dumps(data, indent=indent)}\n", overwrite=overwrite)


def make_folder(folder: Path) -> Path:
    """Make a folder, and those above it, if it is missing; return it.

    Raises:
        FileError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {folder}: {why_it_failed(error)}") from error
    return folder


@contextmanager
def failures_named(target: Path) -> Iterator[None]:
    """Turn every ``OSError`` into a `FileError` that names the target and the way out."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{target} cannot be written: {why_it_failed(error)}") from error


def why_it_failed(error: OSError) -> str:
    """Return why writing failed, and the way out."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)
