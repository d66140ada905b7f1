"""What a probe found so far, saved after every unit, so that it can go on after an interruption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from ..files.json_file import read_json
from ..files.stored_data import StoredData, checked
from ..files.write import write_json

_KIND, _VERSION = "nvfp4_foundry.probe", 1
_SKETCH_VALUES = 256
# Two runs of the same sampling may differ in the last bits on a GPU. Another model, or another
# patch of it, differs by far more.
_SKETCH_TOLERANCE = 1e-3

#: Format and unit.
ProbeRun = tuple[str, str]


@dataclass(frozen=True)
class UnitShift:
    """Squared norms of the shift and of the reference, and the probed layers that did not run."""

    difference: float
    reference: float
    unreached: tuple[str, ...] = ()

    @property
    def square(self) -> float:
        """The relative squared shift; NaN if the reference is zero or not finite."""
        return self.difference / self.reference if 0 < self.reference < math.inf else math.nan


def _require_square(value: float) -> float:
    if value < 0:
        raise ValueError("a square is not negative")
    return value


_Square = Annotated[float, AfterValidator(_require_square)]
# JSON has no tuples, and a strict model would take none of its lists for one.
_StoredUnit = Annotated[tuple[str, str, _Square, _Square, list[str]], Field(strict=False)]


class _StoredProbe(StoredData):
    kind: str
    version: int
    key: str
    sketch: list[float]
    units: list[_StoredUnit]


class ProbeRecord:
    """The units known of one probed sampling, in memory and in a file.

    ``key`` is a digest of everything that decides the numbers. As not everything that can change a
    model is in it, some values of the reference are compared too: a record with another key or
    reference is ignored and replaced.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Name the file; nothing is read yet."""
        self.path, self.key = path, key
        self._sketch: tuple[float, ...] = ()
        self._known: dict[ProbeRun, UnitShift] = {}

    @property
    def known(self) -> Mapping[ProbeRun, UnitShift]:
        """The units known since `begin`."""
        return self._known

    def begin(self, reference: Tensor) -> Mapping[ProbeRun, UnitShift]:
        """Return the units known of the sampling whose own result is ``reference``."""
        self._sketch = _sketch(reference)
        self._known = self._read()
        return dict(self._known)

    def add(self, run: ProbeRun, shift: UnitShift) -> None:
        """Add one unit and save. Raises `FileError` if the file cannot be written."""
        self._known[run] = shift
        write_json(self.path, self._to_json())

    def _to_json(self) -> dict[str, Any]:
        return {
            "kind": _KIND,
            "version": _VERSION,
            "key": self.key,
            "sketch": self._sketch,
            "units": [
                [*run, shift.difference, shift.reference, shift.unreached]
                for run, shift in self._known.items()
            ],
        }

    def _read(self) -> dict[ProbeRun, UnitShift]:
        """Return the units in the file; none if it is missing, damaged or of another sampling."""
        try:
            data = checked(_StoredProbe, read_json(self.path, endless=True))
            same = (data.kind, data.version, data.key) == (_KIND, _VERSION, self.key)
            if not same or not _is_close(self._sketch, data.sketch):
                return {}
            return {
                (fmt, unit): UnitShift(difference, reference, tuple(unreached))
                for fmt, unit, difference, reference, unreached in data.units
            }
        except (OSError, ValueError):
            return {}


def discard_oldest(folder: Path, keep: int) -> None:
    """Delete the records of a folder except the latest ``keep``."""
    records = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in records[: max(0, len(records) - keep)]:
        path.unlink(missing_ok=True)


def _sketch(reference: Tensor) -> tuple[float, ...]:
    """Return values spread evenly over a tensor."""
    flat = reference.detach().reshape(-1)
    step = max(1, flat.numel() // _SKETCH_VALUES) | 1  # odd: not the same column of every row
    return tuple(flat[::step].to("cpu", torch.float64).tolist())


def _is_close(a: Sequence[float], b: Sequence[float]) -> bool:
    if len(a) != len(b):
        return False
    return math.dist(a, b) <= _SKETCH_TOLERANCE * max(math.hypot(*a), math.hypot(*b))
