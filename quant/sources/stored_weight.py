"""A weight that its source stores quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

from ..formats import WeightFormat
from ..formats.base import row_slices
from ..formats.parallel import share_chunks


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """How one quantized weight is stored, and how to decode it.

    Attributes:
        label: name for users: the format, and the convention if it is not ComfyUI's.
        shape: ``(out, in)`` of the decoded weight.
        names: the tensors that store the weight, with its input scale.
        nbytes: bytes of these tensors.
        read: reads the tensors and returns a function that decodes some rows to float32
            ``[rows, in]``. The bits do not depend on how many rows are decoded at once.
        format: ComfyUI's format with the same codes and scales; None if there is none.
        tensors: reads the weight in the layout of this format, by suffix (see
            `WeightFormat.tensor_specs`).
        input_amax: reads the largest activation that the static input scale covers; None without
            an input scale.
        kept_as: name of the format that stores and multiplies the weight in the same way; empty if
            there is none.
        comfyui_reads: whether ComfyUI itself reads this convention.
        remark: what users should know about such weights, to follow "N weights"; empty: nothing.
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
    remark: str = ""

    def decode(self) -> torch.Tensor:
        """Read and decode the weight, float32 ``[out, in]``.

        Decodes bands of rows on all cores, which keeps temporaries small.

        Raises:
            FormatError, RuntimeError, ValueError: the stored tensors do not fit together.
        """
        decode_rows = self.read()
        values = torch.empty(self.shape, dtype=torch.float32)

        def loop(chunks: Iterable[slice]) -> None:
            for rows in chunks:
                values[rows] = decode_rows(rows)

        share_chunks(loop, row_slices(self.shape[0], prod(self.shape[1:])), values.device)
        return values

    def decode_runs(self, starts: Sequence[int], length: int) -> torch.Tensor:
        """Return ``length`` consecutive values from each flat position, ``[starts, length]``.

        Reads the whole weight, but decodes only the rows that hold these values.
        """
        decode_rows, columns = self.read(), prod(self.shape[1:])
        runs = []
        for start in starts:
            first, stop = start // columns, -(-(start + length) // columns)
            values = decode_rows(slice(first, stop)).flatten()
            runs.append(values[start - first * columns :][:length])
        return torch.stack(runs)

    def fits(self, wanted: WeightFormat) -> bool:
        """Whether ``wanted`` would store the same tensors."""
        if self.format is None or self.tensors is None:
            return False
        return self.format.stores_like(wanted, self.shape)
