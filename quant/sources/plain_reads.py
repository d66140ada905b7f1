"""Reading parts of a file into memory of their own.

A memory map would count as resident memory page by page, and grow with the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import SourceError


def open_unbuffered(path: Path) -> BinaryIO:
    """Open a file for `read_into`.

    Raises:
        SourceError: it cannot be opened.
    """
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error


def read_into(buffer: np.ndarray, file: BinaryIO, offset: int, path: Path, name: str) -> None:
    """Fill a uint8 buffer from an offset of a file opened by `open_unbuffered`.

    Raises:
        SourceError: the file ends inside tensor ``name``.
    """
    file.seek(offset)
    view = buffer.data
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise SourceError(
                f"{path} ends inside tensor {name}: the file is truncated, fetch it again"
            )
        done += count
