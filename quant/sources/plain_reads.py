"""Read parts of a file into buffers.

The pages of a memory map would count as resident memory, which would grow with the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import SourceError


def open_unbuffered(path: Path) -> BinaryIO:
    """Open a file for `read_into`.

    Raises:
        SourceError: the file cannot be opened.
    """
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error


def read_into(buffer: np.ndarray, file: BinaryIO, offset: int, path: Path, name: str) -> None:
    """Fill a uint8 buffer from an offset of a file that `open_unbuffered` opened.

    Raises:
        SourceError: the file ends inside tensor ``name``.
    """
    file.seek(offset)
    view = buffer.data
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise SourceError(f"{path} is truncated: it ends inside tensor {name}; fetch it again")
        done += count
