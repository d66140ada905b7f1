"""Names of files: valid ones, and ones that are free."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from ...quant.files.target import is_device_name

_FORBIDDEN = re.compile(r'[<>:"|?*/\\]')
# Control characters, surrogates, characters without a meaning, and separators of lines. Characters
# that only format are part of some scripts and of emoji, but these change the direction of a text.
_CATEGORIES = frozenset({"Cc", "Cs", "Co", "Cn", "Zl", "Zp"})
_DIRECTIONS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
# File systems allow 255 bytes; suffixes and the temporary name need some of them.
_LONGEST_NAME = 180
_LONGEST_PATH = 800
_SHOWN = 60


def why_not_name(name: str) -> str | None:
    """Return why a name without folders is not valid on every system; None if it is."""
    if not name:
        return "it is empty"
    if any(unicodedata.category(c) in _CATEGORIES or c in _DIRECTIONS for c in name):
        return "it has characters that cannot be seen"
    if found := _FORBIDDEN.search(name):
        return f"it has the character {found[0]}"
    if name.startswith("."):
        return "it starts with a dot"
    if name != name.strip() or name.endswith("."):
        return "it starts or ends with a space, or ends with a dot"
    if is_device_name(name):
        return "Windows has a device of this name"
    if len(name.encode()) > _LONGEST_NAME:
        return f"it is longer than {_LONGEST_NAME} bytes"
    return None


def is_file_name(name: str) -> bool:
    """Whether a name without folders is a valid file name on every system."""
    return why_not_name(name) is None


def why_not_path(path: str) -> str | None:
    """Return why a name with folders in front, divided by ``/``, is not valid; None if it is."""
    if len(path.encode(errors="replace")) > _LONGEST_PATH:
        return f"it is longer than {_LONGEST_PATH} bytes"
    return next(filter(None, map(why_not_name, path.split("/"))), None)


def normal(name: str) -> str:
    """Return a name in the composed form (NFC), so that it is the same file on every system."""
    return unicodedata.normalize("NFC", name)


def quoted(name: str) -> str:
    """Return a name in quotes for a message: invisible characters escaped, and not too long."""
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")


def free_name(path: Path) -> Path:
    """Return ``path``, or the first ``path_2``, ``path_3``, ... that does not exist."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return candidate
