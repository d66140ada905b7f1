"""Read whole files of a bounded size, and only regular ones: a pipe or device may never end."""

from __future__ import annotations

from pathlib import Path

from .target import require_ordinary


def read_plain_file(path: Path, largest: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        FileError: it is a device, a pipe or a socket, or no file can have this name.
        OSError: it cannot be read.
        ValueError: it has more than ``largest`` bytes.
    """
    require_ordinary(path)
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"it has more than {largest} bytes")
    return data


def read_text_file(path: Path, largest: int) -> str:
    """Return the text of a regular file in UTF-8, without a byte order mark.

    Raises:
        FileError, OSError: see `read_plain_file`.
        ValueError: it is too large, or not UTF-8.
    """
    return read_plain_file(path, largest).decode("utf-8-sig")
