"""Read JSON that others wrote: an index, a config, a recipe, the header of a file.

Everything that a file could do to its reader is refused here, once: nesting that exhausts the
stack, numbers of thousands of digits, more values than any model has, halves of characters that
cannot be written. So readers only check what the values mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import FileError
from .plain_file import read_plain_file

#: The most bytes that JSON may have. The longest headers of large models have a tenth of it.
LARGEST = 64_000_000
#: For files that people write or that describe one thing: recipes, configs, markers.
LARGEST_SMALL = 4_000_000
# A list or object takes up to 200 bytes of memory, a value up to 50, so both are counted before.
_MOST_CONTAINERS, _MOST_VALUES = 2_000_000, 8_000_000
_DEEPEST = 64
_LONGEST_NUMBER = 40
_SHOWN = 60


def parse_json(
    data: str | bytes,
    *,
    unique_names: bool = False,
    endless: bool = False,
    largest: int = LARGEST,
) -> Any:
    """Parse JSON.

    Args:
        data: the text, in UTF-8 if it is bytes.
        unique_names: refuse objects that have a name twice, of which one value would be lost.
        endless: accept NaN and infinities, which our own files may hold as measured values.
        largest: the most bytes or characters that are read.

    Raises:
        ValueError: it is not JSON, too long, nests too deeply, has numbers that nothing can hold,
            has a name twice or with NUL, or has text that cannot be written.
    """
    text = _text(data, largest)
    try:
        parsed = json.loads(
            text,
            object_pairs_hook=_unique if unique_names else None,
            parse_int=_whole,
            parse_float=_number(endless),
            parse_constant=_constant(endless),
        )
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    _require_plain(parsed, odd_text="\\u" in text or not text.isascii())
    return parsed


def read_json(
    path: Path, *, unique_names: bool = False, endless: bool = False, largest: int = LARGEST
) -> Any:
    """Parse a JSON file; see `parse_json`.

    Raises:
        FileError: it is a device, a pipe or a socket.
        OSError: the file cannot be read.
        ValueError: see `parse_json`.
    """
    data = read_plain_file(path, largest)
    return parse_json(data, unique_names=unique_names, endless=endless, largest=largest)


def read_json_object(path: Path, largest: int = LARGEST_SMALL) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is no valid one."""
    try:
        data = read_json(path, largest=largest)
    except (FileError, OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def parse_object(text: str | None, largest: int = LARGEST) -> dict[str, Any]:
    """Return the object in a text of a header; empty if it is missing or not valid."""
    try:
        data = parse_json(text or "{}", largest=largest)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _text(data: str | bytes, largest: int) -> str:
    if len(data) > largest:
        raise ValueError(f"it has {len(data)} bytes; at most {largest} are read")
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text: {error}") from None
    if text.count("[") + text.count("{") > _MOST_CONTAINERS or text.count(",") > _MOST_VALUES:
        raise ValueError("it holds more values than any model needs")
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it holds {name[:_SHOWN]!r} twice")
        found[name] = value
    return found


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _number(endless: bool) -> Callable[[str], float]:
    def parse(digits: str) -> float:
        value = float(digits)
        if not endless and not math.isfinite(value):
            raise ValueError(f"it holds the number {digits[:_SHOWN]}, which is too large")
        return value

    return parse


def _constant(endless: bool) -> Callable[[str], float]:
    def parse(name: str) -> float:
        if not endless:
            raise ValueError(f"it holds {name}, which is no number in JSON")
        return float(name)

    return parse


def _require_plain(parsed: Any, *, odd_text: bool) -> None:
    """Refuse values that nest too deeply, names with NUL, and halves of surrogate pairs."""
    level, depth = [parsed], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError("it nests too deeply")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if odd_text:
                    for name in value:
                        _require_name(name)
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
            elif odd_text and isinstance(value, str):
                _require_writable(value)
        level = [v for v in inner if odd_text or isinstance(v, (dict, list))]


def _require_name(name: str) -> None:
    _require_writable(name)
    if "\0" in name:
        raise ValueError(f"the name {name[:_SHOWN]!r} has a NUL character")


def _require_writable(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{text[:_SHOWN]!a} holds half of a character") from None
