"""Names of files: valid ones, and ones that are free."""

from __future__ import annotations

import re
from pathlib import Path

_FORBIDDEN = re.compile(r'[<>:"|?*/\\\x00-\x1f]')
# File systems allow 255 bytes; suffixes and the temporary name need some of them.
_LONGEST_NAME = 180


def is_file_name(name: str) -> bool:
    """Whether a name without folders is a valid file name on every system."""
    allowed = not _FORBIDDEN.search(name) and not name.startswith(".")
    return bool(name) and allowed and len(name.encode()) <= _LONGEST_NAME


def free_name(path: Path) -> Path:
    """Return ``path``, or the first ``path_2``, ``path_3``, ... that does not exist."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return candidate
