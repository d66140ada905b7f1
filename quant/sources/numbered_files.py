"""Files that are one of several parts of a model by their name, such as ``00001-of-00003``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# model-00001-of-00003.safetensors, model_part1of2.safetensors, model.safetensors-1-of-2
_NUMBERED = re.compile(
    r"(?P<stem>|.*?(?:part|shard)[-_. ]?|.*?[-_. ])"
    r"(?P<number>\d{1,6})[-_. ]?of[-_. ]?(?P<count>\d{1,6})(?P<end>\.[a-z]\w*)?",
    re.IGNORECASE,
)
_NAMED = 4


@dataclass(frozen=True)
class Part:
    """The place of a file among the parts of a model: ``number`` of ``count``, from 1."""

    path: Path
    stem: str
    number: int
    count: int


def part_of(path: Path) -> Part | None:
    """Return which part of a model a file is by its name; None if it is the only one."""
    found = _NUMBERED.fullmatch(path.name)
    if not found:
        return None
    number, count = int(found["number"]), int(found["count"])
    if count < 2 or not 0 <= number <= count:
        return None
    return Part(path, f"{found['stem']}*{found['end'] or ''}".lower(), number, count)


def parts_beside(part: Part) -> list[Part]:
    """Return all parts of the same model in the folder of one of them, by number."""
    others = (part_of(path) for path in part.path.parent.iterdir() if path.is_file())
    same = [o for o in others if o and (o.stem, o.count) == (part.stem, part.count)]
    return sorted(same, key=lambda other: other.number)


def sets_of(paths: Iterable[Path]) -> Mapping[tuple[str, int], list[Part]]:
    """Group files by the model that they are parts of. Files without a number are left out."""
    found: dict[tuple[str, int], list[Part]] = defaultdict(list)
    for part in map(part_of, paths):
        if part is not None:
            found[part.stem, part.count].append(part)
    return found


def missing_parts(parts: Iterable[Part]) -> list[int]:
    """Return the numbers that are missing among the parts of one model.

    Numbers usually count from 1, but some tools count from 0.
    """
    known = list(parts)
    count = known[0].count
    numbers = {part.number for part in known}
    first = 0 if 0 in numbers else 1
    return [number for number in range(first, first + count) if number not in numbers]


def describe_missing(part: Part, missing: list[int]) -> str:
    """Return what is missing beside a part, in words."""
    names = [_named_like(part, number) for number in missing[:_NAMED]]
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return f"{', '.join(names)}{more}"


def _named_like(part: Part, number: int) -> str:
    """Return the name of another part."""
    name = part.path.name
    found = _NUMBERED.fullmatch(name)
    assert found is not None
    start, end = found.span("number")
    return f"{name[:start]}{str(number).zfill(end - start)}{name[end:]}"
