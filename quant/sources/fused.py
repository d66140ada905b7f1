"""Models whose names in diffusers differ from ComfyUI's by more than names.

ComfyUI keeps the projections of an attention in one matrix where diffusers has several, one below
the other, and has the two halves of the last modulation in the other order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch

from ..errors import SourceError
from .base import StoredAs, TensorInfo, TensorSource
from .stored_weight import StoredWeight
from .view import SourceView


@dataclass(frozen=True)
class Place:
    """Where a module of diffusers goes: the module of ComfyUI, and which part of how many.

    ``swaps_halves``: ComfyUI has the two halves of the rows in the other order.
    """

    module: str
    part: int = 0
    parts: int = 1
    swaps_halves: bool = False


@dataclass(frozen=True)
class Fusion:
    """How the models of one family are named in diffusers.

    ``place`` returns where a module goes; None for one that the family does not have.
    """

    title: str
    is_used: Callable[[Iterable[str]], bool]
    place: Callable[[str], Place | None]


@dataclass(frozen=True)
class _Rows:
    """Rows of a tensor of the source."""

    name: str
    start: int
    stop: int


class FusedSource(SourceView):
    """A source with ComfyUI's names, in which each tensor is made of rows of others.

    Raises:
        SourceError: a tensor has no place, or parts of one are missing.
    """

    def __init__(self, source: TensorSource, fusion: Fusion):
        super().__init__(source, f"the source is {fusion.title}; ComfyUI's names are used instead")
        self.comfyui_reads = False
        self.linear_layers = None
        self._rows = {
            name: _rows(source, places) for name, places in _grouped(source, fusion).items()
        }
        self._tensors = {name: _info(source, name, rows) for name, rows in self._rows.items()}

    def _whole(self, name: str) -> str | None:
        """Return the tensor of the source that is this one; None if it has to be put together."""
        self.info(name)
        rows = self._rows[name]
        return rows[0].name if len(rows) == 1 else None

    def load(self, name: str) -> torch.Tensor:
        """Load a tensor, put together from its parts."""
        whole = self._whole(name)
        if whole is not None:
            return self._source.load(whole)
        parts = [self._source.load(r.name)[r.start : r.stop] for r in self._rows[name]]
        return torch.cat(_in_one_dtype(parts))

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Load parts of a tensor, each from the rows that hold it."""
        whole = self._whole(name)
        if whole is not None:
            return self._source.load_runs(whole, starts, length)
        return torch.stack([self._run(name, start, length) for start in starts])

    def _run(self, name: str, start: int, length: int) -> torch.Tensor:
        width = prod(self.info(name).shape[1:])
        pieces, first = [], 0
        for rows in self._rows[name]:
            size = (rows.stop - rows.start) * width
            begin, end = max(start - first, 0), min(start + length - first, size)
            if begin < end:
                offset = rows.start * width + begin
                pieces.append(self._source.load_runs(rows.name, [offset], end - begin)[0])
            first += size
        return torch.cat(_in_one_dtype(pieces))

    def stored_weight(self, name: str) -> StoredWeight | None:
        """Return how the parts of a weight are stored, or None if none is quantized."""
        whole = self._whole(name)
        if whole is not None:
            return self._source.stored_weight(whole)
        found = {rows.name: self._source.stored_weight(rows.name) for rows in self._rows[name]}
        stored = [part for part in found.values() if part is not None]
        if not stored:
            return None
        return StoredWeight(
            label=stored[0].label,
            shape=self.info(name).shape,
            names=tuple(n for part in stored for n in part.names),
            nbytes=sum(part.nbytes for part in stored),
            read=lambda: self._decoder(name, found),
        )

    def _decoder(
        self, name: str, found: Mapping[str, StoredWeight | None]
    ) -> Callable[[slice], torch.Tensor]:
        decoders = {
            part: stored.read() if stored else self._source.load(part).float().__getitem__
            for part, stored in found.items()
        }

        def decode(wanted: slice) -> torch.Tensor:
            pieces, first = [], 0
            for rows in self._rows[name]:
                size = rows.stop - rows.start
                begin, end = max(wanted.start - first, 0), min(wanted.stop - first, size)
                if begin < end:
                    part = slice(rows.start + begin, rows.start + end)
                    pieces.append(decoders[rows.name](part))
                first += size
            return torch.cat(pieces)

        return decode


def _grouped(source: TensorSource, fusion: Fusion) -> dict[str, dict[int, tuple[str, Place]]]:
    """Return the parts of each tensor of ComfyUI: number, tensor of the source, place."""
    groups: dict[str, dict[int, tuple[str, Place]]] = {}
    for name in source.tensors:
        module, dot, leaf = name.rpartition(".")
        place = fusion.place(module) or fusion.place(name)
        if place is None:
            raise SourceError(
                f"{source.description} is {fusion.title}, but {name} has no place in ComfyUI's "
                "model; start from a file in the original names"
            )
        target = place.module if fusion.place(module) is None else f"{place.module}{dot}{leaf}"
        parts = groups.setdefault(target, {})
        if place.part in parts:
            raise SourceError(
                f"{source.description} is {fusion.title}, but {parts[place.part][0]} and {name} "
                f"are both {target}; start from a file with one model"
            )
        parts[place.part] = (name, place)
    for target, parts in groups.items():
        name, place = next(iter(parts.values()))
        if len(parts) != place.parts:
            raise SourceError(
                f"{source.description} is {fusion.title}, but of the {place.parts} parts of "
                f"{target} it has only {', '.join(n for n, _ in parts.values())}; fetch all shards"
            )
    return groups


def _rows(source: TensorSource, parts: Mapping[int, tuple[str, Place]]) -> tuple[_Rows, ...]:
    found: list[_Rows] = []
    for number in sorted(parts):
        name, place = parts[number]
        shape = source.info(name).shape
        count = shape[0] if shape else 1
        if place.swaps_halves:
            half = count // 2
            found += [_Rows(name, half, count), _Rows(name, 0, half)]
        else:
            found.append(_Rows(name, 0, count))
    return tuple(found)


def _info(source: TensorSource, name: str, rows: tuple[_Rows, ...]) -> TensorInfo:
    infos = [source.info(part.name) for part in rows]
    if len(rows) == 1:
        return replace(infos[0], name=name)
    if len({info.shape[1:] for info in infos}) > 1:
        raise SourceError(
            f"{source.description}: the parts of {name} have different widths: "
            f"{', '.join(f'{info.name} {info.shape}' for info in infos)}; fetch the file again"
        )
    shape = (sum(part.stop - part.start for part in rows), *infos[0].shape[1:])
    stored = [info.stored for info in {info.name: info for info in infos}.values()]
    quantized = [part for part in stored if part is not None]
    about = None
    if quantized:
        sizes = (info.file_bytes for info in {info.name: info for info in infos}.values())
        about = StoredAs(quantized[0].label, sum(sizes))
    return TensorInfo(name, shape, _common_dtype([info.dtype for info in infos]), about)


def _common_dtype(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """Return a dtype that holds the values of all of these."""
    widest = max(dtypes, key=lambda dtype: dtype.itemsize)
    others = {dtype for dtype in dtypes if dtype.itemsize == widest.itemsize}
    return widest if len(others) == 1 else torch.float32


def _in_one_dtype(parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    dtype = _common_dtype([part.dtype for part in parts])
    return [part.to(dtype) for part in parts]
