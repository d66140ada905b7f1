"""The layers of a view, as columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...planning.inventory import BlockPosition, block_positions
from .numbers import rounded_all

_NO_WEIGHT = ("parameter", "buffer")
Values = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class LayerColumns:
    """Every column has one value per layer, in one order.

    ``formats`` is None where no format has been chosen yet. ``remarks`` are further reasons, of
    rounding, bias and input scale. ``values`` are numbers by measure; None: not measured.

    Raises:
        ValueError: a column has another length.
    """

    names: Sequence[str]
    kinds: Sequence[str]
    shapes: Sequence[tuple[int, ...]]
    formats: Sequence[str] | None = None
    reasons: Sequence[str] | None = None
    remarks: Sequence[str] | None = None
    values: Values = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the lengths."""
        columns = (self.kinds, self.shapes, self.formats, self.reasons, self.remarks)
        for column in (*columns, *self.values.values()):
            if column is not None and len(column) != len(self.names):
                raise ValueError(f"{len(column)} values for {len(self.names)} layers")

    @property
    def positions(self) -> list[BlockPosition | None]:
        """Each layer's position in the model's lists of blocks; None outside of them."""
        shapes = {
            name if kind in _NO_WEIGHT else f"{name}.weight": shape
            for name, kind, shape in zip(self.names, self.kinds, self.shapes, strict=True)
        }
        found = block_positions(shapes)
        return [found.get(name) for name in self.names]

    def to_json(self, containers: Sequence[str]) -> dict[str, Any]:
        """Return JSON-serialisable data; ``containers`` are the names of the lists of blocks."""
        index = {name: number for number, name in enumerate(containers)}
        positions = self.positions
        data: dict[str, Any] = {
            "name": list(self.names),
            "container": [index[p.container] if p else -1 for p in positions],
            "block": [p.index if p else -1 for p in positions],
            "row": coded(map(row_of, self.names, positions)),
            "kind": coded(self.kinds),
            "shape": coded("x".join(map(str, shape)) for shape in self.shapes),
            "reason": coded(self.reasons if self.reasons is not None else [""] * len(self.names)),
        }
        if self.formats is not None:
            data["format"] = coded(self.formats)
        if self.remarks is not None and any(self.remarks):
            data["remarks"] = coded(self.remarks)
        data["values"] = {
            name: rounded_all(column)
            for name, column in self.values.items()
            if any(value is not None for value in column)
        }
        return data


def containers_of(positions: Iterable[BlockPosition | None]) -> dict[str, int]:
    """Return the number of blocks of each list of blocks, by the name of the list."""
    return {position.container: position.count for position in positions if position}


def row_of(name: str, position: BlockPosition | None) -> str:
    """Return a layer's kind within its block, such as ``attn.to_q``; outside, the whole name."""
    if position is None:
        return name
    return name.removeprefix(f"{position.container}.{position.index}.")


def coded(values: Iterable[str]) -> dict[str, Any]:
    """Return a column of repeated strings as distinct strings and an index for each value."""
    index: dict[str, int] = {}
    at = [index.setdefault(value, len(index)) for value in values]
    return {"of": list(index), "at": at}
