"""A weight that is quantized in its source already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ..formats import WeightFormat


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """How one 2-D weight is stored, and how to get it.

    Attributes:
        label: for people: the format and whose convention it is.
        shape: ``(out, in)`` of the weight it stands for.
        names: the tensors it is made of, its input scale included.
        nbytes: bytes of all of them.
        decode: reads it; float32 ``[out, in]``.
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
    decode: Callable[[], torch.Tensor]
    format: WeightFormat | None = None
    tensors: Callable[[], Mapping[str, torch.Tensor]] | None = None
    input_amax: Callable[[], float | None] = lambda: None
    kept_as: str = ""
    comfyui_reads: bool = False

    def fits(self, wanted: WeightFormat) -> bool:
        """Whether the stored tensors are what ``wanted`` would store, bit for bit."""
        if self.format is None or self.tensors is None:
            return False
        return self.format.stores_like(wanted, self.shape)
