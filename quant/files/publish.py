"""Publish finished files: a partial file beside the target is renamed once it is complete.

So the target name never holds a partial file, whatever stops the process.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

import psutil

from ..errors import CheckpointError

# Space to leave free on the disk beyond the file itself.
_DISK_MARGIN = 64 << 20
_PARTIAL = re.compile(r"\.(?P<target>.+)\.(?P<pid>\d+)-[0-9a-f]{8}\.partial")


def check_target(target: Path, data_bytes: int, *, overwrite: bool) -> None:
    """Raise `CheckpointError` if a file of this size cannot or must not be written there."""
    folder = target.parent
    if not folder.is_dir():
        raise CheckpointError(f"the folder {folder} does not exist; create it or choose another")
    if target.is_dir():
        raise CheckpointError(f"{target} is a folder; give a file name")
    if target.exists() and not overwrite:
        raise CheckpointError(f"{target} exists; choose another name or allow overwriting")
    if not os.access(folder, os.W_OK):
        raise CheckpointError(f"the folder {folder} is not writable; choose another folder")
    free = shutil.disk_usage(folder).free
    if free < data_bytes + _DISK_MARGIN:
        raise CheckpointError(
            f"{target} needs {data_bytes / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free in "
            f"{folder}; free some space or choose a folder on another disk"
        )


def publish(partial: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a finished file to its target, atomically. Replaces a file only with ``overwrite``.

    Raises:
        CheckpointError: another program created the target while the file was being written.
    """
    try:
        if overwrite:
            os.replace(partial, target)
        else:
            _rename_to_new(partial, target)
    except FileExistsError:
        raise CheckpointError(
            f"another program created {target} while it was being written; that file was kept. "
            "Choose another name or allow overwriting"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot rename the finished file to {target}: {error}") from error
    _sync_folder(target.parent)


def _rename_to_new(partial: Path, target: Path) -> None:
    if os.name == "nt":
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


def remove_stale_partials(target: Path) -> None:
    """Delete partial files of this target that killed processes left."""
    for path in target.parent.glob(".*.partial"):
        match = _PARTIAL.fullmatch(path.name)
        if match and match["target"] == target.name and not psutil.pid_exists(int(match["pid"])):
            with contextlib.suppress(OSError):
                path.unlink()
