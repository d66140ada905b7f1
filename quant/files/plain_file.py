"""Read whole files of a bounded size, and only regular ones: a pipe or device may never end."""

from __future__ import annotations

import stat
from pathlib import Path


def read_plain_file(path: Path, largest: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: it cannot be read, or is a pipe, a device, or a folder.
        ValueError: it has more than ``largest`` bytes, or its name cannot be that of a file.
    """
    require_plain_file(path)
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"it has more than {largest} bytes")
    return data


def read_text_file(path: Path, largest: int) -> str:
    """Return the text of a regular file in UTF-8, without a byte order mark.

    Raises:
        OSError: see `read_plain_file`.
        ValueError: it is too large, or not UTF-8.
    """
    return read_plain_file(path, largest).decode("utf-8-sig")


def require_plain_file(path: Path) -> None:
    """Refuse what is there but is not a regular file.

    Raises:
        OSError: it is missing, or a pipe, a device, or a folder.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a folder; give a file")
    if not stat.S_ISREG(mode):
        raise OSError(f"{path} is not a regular file; give a file on a disk")
