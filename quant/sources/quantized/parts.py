"""Find the tensors of a weight in files without markers."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch

from ...errors import SourceError
from ..base import TensorInfo, TensorSource

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def layers_with(source: TensorSource, *suffixes: str) -> Iterator[str]:
    """Yield the names of layers that have a tensor of every suffix."""
    first, *others = suffixes
    for name in source.tensors:
        base, _, leaf = name.rpartition(".")
        if leaf == first and base and all(f"{base}.{s}" in source.tensors for s in others):
            yield base


def part(source: TensorSource, layer: str, suffix: str) -> TensorInfo | None:
    """Return a tensor of a layer by suffix, or None."""
    return source.tensors.get(f"{layer}.{suffix}")


def number(source: TensorSource, layer: str, suffix: str) -> float | None:
    """Return a stored number, or None. If the tensor holds several values, return the largest."""
    info = part(source, layer, suffix)
    return None if info is None else float(source.load(info.name).float().max())


def one_number(source: TensorSource, layer: str, suffix: str) -> float:
    """Return the only number of a tensor that has to exist.

    Raises:
        SourceError: the tensor holds several numbers, whose meaning is not known.
    """
    info = source.info(f"{layer}.{suffix}")
    if prod(info.shape) != 1:
        raise SourceError(
            f"{source.description}: {info.name} has the shape {info.shape}, but one number is "
            "expected; start from another version of the model"
        )
    return float(source.load(info.name).float().reshape(()))


def names_of(source: TensorSource, layer: str, *suffixes: str) -> tuple[str, ...]:
    """Return the full names of those tensors of a layer that exist."""
    infos = (part(source, layer, suffix) for suffix in suffixes)
    return tuple(info.name for info in infos if info is not None)


def total_bytes(source: TensorSource, names: tuple[str, ...]) -> int:
    """Return the total bytes of these tensors."""
    return sum(source.info(name).nbytes for name in names)
