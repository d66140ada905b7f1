"""A weight that is quantized in its source already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

from ..formats import WeightFormat
from ..formats.base import row_slices


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """How one 2-D weight is stored, and how to get it.

    Attributes:
        label: for people: the format, and whose convention it is if not ComfyUI's.
        shape: ``(out, in)`` of the weight it stands for.
        names: the tensors it is made of, its input scale included.
        nbytes: bytes of all of them.
        read: reads what it is made of; returns what decodes some rows of it, float32
            ``[rows, in]``, to the same bits however many are decoded at once.
        format: the format of ComfyUI that holds the same codes and scales; None where it has none.
        tensors: reads it as that format stores it, by suffix (see `WeightFormat.tensor_specs`).
        input_amax: reads the largest activation its static input scale stands for; None where it
            has none.
        kept_as: the name of the format of ours that stores and multiplies it alike; empty where
            there is none.
        comfyui_reads: whether ComfyUI itself understands this convention.
    """

    label: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    nbytes: int
    read: Callable[[], Callable[[slice], torch.Tensor]]
    format: WeightFormat | None = None
    tensors: Callable[[], Mapping[str, torch.Tensor]] | None = None
    input_amax: Callable[[], float | None] = lambda: None
    kept_as: str = ""
    comfyui_reads: bool = False

    def decode(self) -> torch.Tensor:
        """Read it; return float32 ``[out, in]``, decoded in bands of rows: temporaries are small.

        Raises:
            FormatError, RuntimeError, ValueError: its parts do not fit together.
        """
        decode_rows = self.read()
        values = torch.empty(self.shape, dtype=torch.float32)
        for rows in row_slices(self.shape[0], prod(self.shape[1:])):
            values[rows] = decode_rows(rows)
        return values

    def decode_runs(self, starts: Sequence[int], length: int) -> torch.Tensor:
        """Return ``length`` consecutive values from each flat position, ``[starts, length]``.

        Reads all of it, but decodes only the rows they are in.
        """
        decode_rows, columns = self.read(), prod(self.shape[1:])
        runs = []
        for start in starts:
            first, stop = start // columns, -(-(start + length) // columns)
            values = decode_rows(slice(first, stop)).flatten()
            runs.append(values[start - first * columns :][:length])
        return torch.stack(runs)

    def fits(self, wanted: WeightFormat) -> bool:
        """Whether the stored tensors are what ``wanted`` would store, bit for bit."""
        if self.format is None or self.tensors is None:
            return False
        return self.format.stores_like(wanted, self.shape)
