"""A GGUF file as a source: tensors dequantized to float32 when they are loaded.

Read with plain reads, a chunk at a time: a memory map would count as resident page by page, and
decoding a whole tensor at once takes several times its float32 size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import SourceError
from .base import StoredAs, TensorInfo, TensorSource
from .gguf_header import GgufTensor, read_gguf_header, require_gguf
from .plain_reads import open_unbuffered, read_into

# Types without blocks; BF16 is read as it is, which the package would widen.
_PLAIN: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
#: What a quantized tensor is stored in where it is not quantized again.
_DECODED = torch.bfloat16
# Values decoded at a time: the temporaries of the densest types are 30 times as many bytes.
_CHUNK = 1 << 18


class GgufFile(TensorSource):
    """A GGUF file opened for reading one tensor at a time.

    Quantized tensors load as float32. `info` gives bfloat16 for them: that is what they are
    stored in where a plan keeps them.

    Raises:
        SourceError: as `read_gguf_header`, or a tensor is of a type that cannot be dequantized.
    """

    def __init__(self, path: Path):
        self.path = path
        self.paths = (path,)
        self.description = str(path)
        self.metadata = {}
        self.comfyui_reads = False
        header = read_gguf_header(path)
        self.architecture = header.architecture
        self._stored = header.tensors
        _require_decodable(path, self._stored)
        self._tensors = {
            name: TensorInfo(
                name,
                tensor.shape,
                _PLAIN.get(tensor.type, _DECODED),
                StoredAs(tensor.type, tensor.nbytes) if tensor.is_quantized else None,
            )
            for name, tensor in self._stored.items()
        }
        self.notes = _quality_note(self._stored)
        self._file = open_unbuffered(path)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the file's order."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Read one tensor; float32 if it is quantized."""
        info, stored = self.info(name), self._stored[name]
        if not stored.is_quantized:
            return self._read_plain(stored, 0, prod(info.shape)).view(info.shape)
        values = torch.empty(prod(info.shape), dtype=torch.float32)
        done = 0
        for chunk in self._decoded(stored, 0, len(values)):
            values[done : done + len(chunk)] = chunk
            done += len(chunk)
        return values.view(info.shape)

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Decode parts of a tensor, reading only the blocks that hold them."""
        self.info(name)
        stored = self._stored[name]
        if not stored.is_quantized:
            return torch.stack([self._read_plain(stored, start, length) for start in starts])
        size = stored.block_size
        runs = []
        for start in starts:
            first, stop = start // size * size, -(-(start + length) // size) * size
            values = torch.cat(list(self._decoded(stored, first, stop)))
            runs.append(values[start - first : start - first + length])
        return torch.stack(runs)

    def _decoded(self, tensor: GgufTensor, first: int, stop: int) -> Iterator[torch.Tensor]:
        """Yield the values from ``first`` to ``stop``, both at the limits of blocks, by chunks.

        Blocks follow each other through the rows, as a row is a whole number of them.
        """
        step = max(1, _CHUNK // tensor.block_size) * tensor.block_size
        for begin in range(first, stop, step):
            count = min(step, stop - begin) // tensor.block_size
            buffer = np.empty(count * tensor.block_bytes, dtype=np.uint8)
            start = begin // tensor.block_size * tensor.block_bytes
            read_into(buffer, self._file, tensor.offset + start, self.path, tensor.name)
            yield _decode(buffer, tensor)

    def _read_plain(self, tensor: GgufTensor, start: int, count: int) -> torch.Tensor:
        """Return ``count`` values from the flat position ``start``, of a type without blocks."""
        dtype = _PLAIN[tensor.type]
        buffer = np.empty(count * dtype.itemsize, dtype=np.uint8)
        read_into(
            buffer, self._file, tensor.offset + start * dtype.itemsize, self.path, tensor.name
        )
        return torch.from_numpy(buffer).view(dtype)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _decode(blocks: np.ndarray, tensor: GgufTensor) -> torch.Tensor:
    """Return the flat values of some blocks, float32."""
    gguf = require_gguf()
    quantized = gguf.GGMLQuantizationType[tensor.type]
    # A scale may be NaN or infinite; whoever stores the weight refuses it by the layer's name.
    with np.errstate(invalid="ignore", over="ignore"):
        # as one row: the package decodes rows in groups of sixteen, slowly
        values = gguf.dequantize(blocks.reshape(1, -1), quantized)
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))


def _require_decodable(path: Path, tensors: Mapping[str, GgufTensor]) -> None:
    """Refuse types that the installed package cannot dequantize, on a block of zeros."""
    refused: dict[str, str] = {}
    first_of_type = {tensor.type: tensor for tensor in reversed(list(tensors.values()))}
    for kind, tensor in first_of_type.items():
        if kind in _PLAIN:
            continue
        try:
            _decode(np.zeros(tensor.block_bytes, dtype=np.uint8), tensor)
        except NotImplementedError:
            refused[kind] = tensor.name
    if refused:
        kinds = ", ".join(f"{kind} (e.g. {name})" for kind, name in refused.items())
        raise SourceError(
            f"{path} holds tensors that the gguf package cannot dequantize: {kinds}; take another "
            "file of the model"
        )


def _quality_note(tensors: Mapping[str, GgufTensor]) -> tuple[str, ...]:
    """Say what the weights went through before they came here."""
    counts: Counter[Any] = Counter(t.type for t in tensors.values() if t.is_quantized)
    if not counts:
        return ()
    kinds = ", ".join(f"{count} from {kind}" for kind, count in counts.most_common())
    return (
        f"the source is a GGUF with quantized weights ({kinds}): the result cannot be better than "
        "they are. Start from the original model if you can",
    )
