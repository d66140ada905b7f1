"""Versions of ComfyUI and comfy-kitchen: what was tried, and what runs. Imports no torch."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

Version = tuple[int, ...]

#: The oldest ComfyUI that the pack supports.
FLOOR: Version = (0, 29)
#: The versions of ComfyUI that the tests ran in, the oldest first.
TRIED_COMFYUI = ("0.29", "0.33")
#: The versions of comfy-kitchen that the tests ran with: those that these versions of ComfyUI pin,
#: and the newest.
TRIED_KITCHEN = ("0.2.24", "0.2.31", "0.2.40")

_NUMBERS = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


def parse_version(text: str) -> Version:
    """Return the numbers of a version: (0, 33) for ``0.33``, (0, 33, 1) for ``v0.33.1+cu130``.

    Raises:
        ValueError: the text does not begin with two numbers.
    """
    found = _NUMBERS.match(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no version such as 0.33")
    return tuple(int(number) for number in found.groups() if number is not None)


def version_text(version: Iterable[int]) -> str:
    """Return a version as text, such as ``0.33``."""
    return ".".join(map(str, version))


def newest(versions: Iterable[Version | None]) -> Version:
    """Return the newest of some versions, at least `FLOOR`; None stands for any version."""
    return max((FLOOR, *(version for version in versions if version is not None)))


def running_comfyui() -> str | None:
    """Return the version of the ComfyUI that this pack runs in or is installed in, or None."""
    module = sys.modules.get("comfyui_version")
    version = getattr(module, "__version__", None)
    if isinstance(version, str):
        return version
    # custom_nodes/PACK/quant/hardware/comfyui.py
    file = Path(__file__).parents[4] / "comfyui_version.py"
    try:
        found = re.search(r'__version__\s*=\s*"([^"]+)"', file.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None


def outside_of(version: str, tried: tuple[str, ...]) -> str:
    """Return whether a version is ``older`` or ``newer`` than all that were tried, else nothing.

    A later number of the newest minor version counts as newer only if that number was tried too.
    """
    try:
        numbers = parse_version(version)
    except ValueError:
        return ""
    first, last = parse_version(tried[0]), parse_version(tried[-1])
    if numbers[: len(first)] < first:
        return "older"
    return "newer" if numbers[: len(last)] > last else ""
