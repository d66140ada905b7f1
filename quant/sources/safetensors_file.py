"""One safetensors file, read with plain reads.

The pages of a memory map would count as resident memory, which would grow with the model. Reads
into the buffer of one tensor do not. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ..errors import SourceError
from .base import TensorInfo, TensorSource
from .plain_reads import open_unbuffered, read_into

# The limit that the safetensors library sets for a header, in bytes.
_MAX_HEADER = 100_000_000

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
if hasattr(torch, "float8_e8m0fnu"):
    DTYPES = {**DTYPES, "F8_E8M0": torch.float8_e8m0fnu}

DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


class SafetensorsFile(TensorSource):
    """A safetensors file opened for reading one tensor at a time."""

    def __init__(self, path: Path):
        self.path = path
        self.paths = (path,)
        self.description = str(path)
        self._file = open_unbuffered(path)
        try:
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

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_header(
    file: BinaryIO, path: Path
) -> tuple[dict[str, str], dict[str, TensorInfo], dict[str, int]]:
    """Parse and check a safetensors header.

    Returns:
        The metadata, the tensors by name, and the offset of each tensor in the file, in bytes.

    Raises:
        SourceError: the message names the file and what is wrong with it.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(8)
    if len(head) < 8:
        raise SourceError(
            f"{path} is not a safetensors file: it has only {size} bytes; fetch it again"
        )
    (length,) = struct.unpack("<Q", head)
    if length > _MAX_HEADER or 8 + length > size:
        raise SourceError(
            f"{path} is not a safetensors file, or is truncated: "
            f"its header claims {length} bytes, but the file has {size}; fetch it again"
        )
    try:
        header: Any = json.loads(file.read(length))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SourceError(f"{path} is not a safetensors file: bad header ({error})") from error
    if not isinstance(header, dict):
        raise SourceError(f"{path} is not a safetensors file: its header is not a JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise SourceError(
            f"{path} is not a safetensors file: its __metadata__ is not a JSON object"
        )
    tensors: dict[str, TensorInfo] = {}
    offsets: dict[str, int] = {}
    for name, entry in header.items():
        tensors[name], offsets[name] = _parse_entry(name, entry, 8 + length, size, path)
    return {str(k): str(v) for k, v in metadata.items()}, tensors, offsets


def _parse_entry(
    name: str, entry: Any, data_start: int, file_size: int, path: Path
) -> tuple[TensorInfo, int]:
    try:
        dtype = DTYPES[entry["dtype"]]
        shape = tuple(int(n) for n in entry["shape"])
        begin, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path}: the header entry of tensor {name} is not valid, or has an unknown data type: "
            f"{entry!r}"
        ) from error
    info = TensorInfo(name, shape, dtype)
    if min((begin, *shape)) < 0:
        raise SourceError(
            f"{path} is damaged: tensor {name} has a negative size or offset: {entry!r}; "
            "fetch it again"
        )
    if end - begin != info.nbytes:
        raise SourceError(
            f"{path} is damaged: tensor {name} has {end - begin} bytes, not {info.nbytes}; "
            "fetch it again"
        )
    if data_start + end > file_size:
        raise SourceError(
            f"{path} is truncated: tensor {name} ends at byte {data_start + end}, "
            f"but the file has only {file_size} bytes; fetch it again"
        )
    return info, data_start + begin
