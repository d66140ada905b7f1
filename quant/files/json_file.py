"""Read JSON that others wrote: an index, a config, the header of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def parse_json(data: str | bytes, *, unique_names: bool = False) -> Any:
    """Parse JSON.

    Args:
        data: the text.
        unique_names: refuse objects that have a name twice, of which one value would be lost.

    Raises:
        ValueError: it is not JSON, nests too deeply, has endless numbers, or names twice.
    """
    try:
        return json.loads(data, object_pairs_hook=_unique if unique_names else None)
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text: {error}") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is no valid one."""
    try:
        data = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it holds {name!r} twice")
        found[name] = value
    return found
