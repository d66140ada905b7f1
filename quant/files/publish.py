"""Give a finished file its name, so that the name never holds an unfinished one."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from ..errors import FileError

# On Windows a virus scanner or an indexer may hold a file for a moment.
_SECONDS_IN_USE = 2.0


def publish(partial: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a finished file to its target, atomically. Replaces a file only with ``overwrite``.

    Raises:
        FileError: another program created the target while the file was being written, or has it
            open on Windows.
    """
    try:
        if overwrite:
            _replace(partial, target)
        else:
            _rename_to_new(partial, target)
    except FileExistsError:
        raise FileError(
            f"another program created {target} while it was being written; that file was kept. "
            "Choose another name or allow overwriting"
        ) from None
    except OSError as error:
        raise FileError(
            f"cannot rename the finished file to {target}: {error.strerror}. Close programs that "
            "use it, or choose another name"
        ) from error
    _sync_folder(target.parent)


def _replace(partial: Path, target: Path, system: str = os.name) -> None:
    """Rename over an existing file; on Windows, wait a little for others to close it."""
    deadline = time.monotonic() + (_SECONDS_IN_USE if system == "nt" else 0)
    while True:
        try:
            os.replace(partial, target)
            return
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.05)


def _rename_to_new(partial: Path, target: Path, system: str = os.name) -> None:
    if system == "nt":
        os.rename(partial, target)  # fails on Windows if the target exists
        return
    try:
        os.link(partial, target)  # unlike rename, link fails if the target exists
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(target) from None
        os.replace(partial, target)
        return
    partial.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the rename durable, on systems where folders can be synced."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
