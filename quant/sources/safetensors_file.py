"""One safetensors file, read with plain reads.

The pages of a memory map would count as resident memory, which would grow with the model. Reads
into the buffer of one tensor do not. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from .base import TensorInfo, TensorSource
from .plain_reads import open_unbuffered, read_into
from .safetensors_header import DTYPE_NAMES, DTYPES, read_header
from .witness import FileWitness


class SafetensorsFile(TensorSource):
    """A safetensors file opened for reading one tensor at a time."""

    def __init__(self, path: Path):
        self.path = path
        self.paths = (path,)
        self.description = str(path)
        self._file = open_unbuffered(path)
        try:
            self._witness = FileWitness(path, self._file)
            self.metadata, self._tensors, self._offsets = read_header(self._file, path)
        except BaseException:
            self._file.close()
            raise

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the order of the header."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Read one tensor into a new buffer."""
        info = self.info(name)
        buffer = np.empty(info.nbytes, dtype=np.uint8)
        read_into(buffer, self._file, self._offsets[name], self.path, name)
        if not info.nbytes:
            return torch.empty(info.shape, dtype=info.dtype)
        return torch.from_numpy(buffer).view(info.dtype).view(info.shape)

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Read only these parts of a tensor."""
        info = self.info(name)
        size = info.dtype.itemsize
        buffer = np.empty((len(starts), length * size), dtype=np.uint8)
        for row, start in zip(buffer, starts, strict=True):
            read_into(row, self._file, self._offsets[name] + start * size, self.path, name)
        return torch.from_numpy(buffer).view(info.dtype)

    def require_unchanged(self) -> None:
        """Refuse a file that changed since it was opened."""
        self._witness.require_unchanged()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


__all__ = ["DTYPES", "DTYPE_NAMES", "SafetensorsFile", "read_header"]
