"""A GGUF file as a source, whose tensors are dequantized to float32 when they are loaded.

The blocks of a tensor are read with plain reads, because the pages of a memory map would count as
resident memory, and decoded in chunks, because decoding a whole tensor at once needs several times
its float32 size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from ..errors import SourceError
from ..formats.base import CHUNK_ELEMENTS, row_slices
from ..formats.parallel import share_chunks
from .base import StoredAs, TensorInfo, TensorSource
from .gguf_blocks import DECODERS
from .gguf_header import GgufTensor, read_gguf_header, require_gguf
from .plain_reads import open_unbuffered, read_into
from .witness import FileWitness

# Types without blocks. BF16 is read directly, because the gguf package would widen it.
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
#: The dtype of quantized tensors in a checkpoint that does not quantize them.
_DECODED = torch.bfloat16
# Values to decode at a time.
_CHUNK = CHUNK_ELEMENTS


class GgufFile(TensorSource):
    """A GGUF file opened for reading one tensor at a time.

    Quantized tensors load as float32. For them, `info` returns bfloat16, the dtype in a checkpoint
    that keeps them.

    Raises:
        SourceError: the header is refused by `read_gguf_header`, or a tensor has a type that
            cannot be dequantized.
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
        self._reading = Lock()  # the position in the file belongs to one thread at a time
        self._witness = FileWitness(path, self._file)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the file's order."""
        return self._tensors

    def load(self, name: str) -> torch.Tensor:
        """Read one tensor; float32 if it is quantized."""
        info, stored = self.info(name), self._stored[name]
        if not stored.is_quantized:
            return self._read_plain(stored, 0, prod(info.shape)).view(info.shape)
        size = stored.block_size
        values = torch.empty(prod(info.shape), dtype=torch.float32)

        def loop(chunks: Iterable[slice]) -> None:
            for chunk in chunks:
                first, stop = chunk.start * size, chunk.stop * size
                blocks = self._read_blocks(stored, first, stop)
                values[first:stop].copy_(_decode(blocks, stored))

        share_chunks(loop, row_slices(len(values) // size, size, _CHUNK), values.device)
        return values.view(info.shape)

    def load_runs(self, name: str, starts: Sequence[int], length: int) -> torch.Tensor:
        """Return parts of a tensor. Reads only the blocks that hold them."""
        self.info(name)
        stored = self._stored[name]
        if not stored.is_quantized:
            return torch.stack([self._read_plain(stored, start, length) for start in starts])
        size = stored.block_size
        runs = []
        for start in starts:
            first, stop = start // size * size, -(-(start + length) // size) * size
            values = _decode(self._read_blocks(stored, first, stop), stored)
            runs.append(values[start - first : start - first + length])
        return torch.stack(runs)

    def _read_blocks(self, tensor: GgufTensor, first: int, stop: int) -> np.ndarray:
        """Return the blocks of the values from ``first`` to ``stop``, uint8 ``[blocks, bytes]``.

        Both are multiples of a block. Blocks do not cross rows, because a row is a whole number of
        blocks.
        """
        count = (stop - first) // tensor.block_size
        blocks = np.empty((count, tensor.block_bytes), dtype=np.uint8)
        start = tensor.offset + first // tensor.block_size * tensor.block_bytes
        with self._reading:
            read_into(blocks.reshape(-1), self._file, start, self.path, tensor.name)
        return blocks

    def _read_plain(self, tensor: GgufTensor, start: int, count: int) -> torch.Tensor:
        """Return ``count`` values of an unquantized tensor from the flat position ``start``."""
        dtype = _PLAIN[tensor.type]
        if not count:  # a view of an empty buffer has no dtype
            return torch.empty(0, dtype=dtype)
        buffer = np.empty(count * dtype.itemsize, dtype=np.uint8)
        read_into(
            buffer, self._file, tensor.offset + start * dtype.itemsize, self.path, tensor.name
        )
        return torch.from_numpy(buffer).view(dtype)

    def require_unchanged(self) -> None:
        """Refuse a file that changed since it was opened."""
        self._witness.require_unchanged()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _decode(blocks: np.ndarray, tensor: GgufTensor) -> torch.Tensor:
    """Return the flat values of some blocks, uint8 ``[blocks, bytes]``, as float32."""
    if tensor.type in DECODERS:
        return DECODERS[tensor.type](torch.from_numpy(blocks)).view(-1)
    gguf = require_gguf()
    quantized = gguf.GGMLQuantizationType[tensor.type]
    # Scales may be NaN or infinite. The encoder refuses such a weight and names the layer.
    with np.errstate(invalid="ignore", over="ignore"):
        # one row, because the package decodes many rows slowly, in groups of sixteen
        values = gguf.dequantize(blocks.reshape(1, -1), quantized)
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))


def _require_decodable(path: Path, tensors: Mapping[str, GgufTensor]) -> None:
    """Refuse types that the installed package cannot dequantize. Tries each on a block of zeros.

    Raises:
        SourceError: the message names the types.
    """
    refused: dict[str, str] = {}
    first_of_type = {tensor.type: tensor for tensor in reversed(list(tensors.values()))}
    for kind, tensor in first_of_type.items():
        if kind in _PLAIN:
            continue
        try:
            _decode(np.zeros((1, tensor.block_bytes), dtype=np.uint8), tensor)
        except NotImplementedError:
            refused[kind] = tensor.name
    if refused:
        kinds = ", ".join(f"{kind} (e.g. {name})" for kind, name in refused.items())
        raise SourceError(
            f"{path} holds tensors that the gguf package cannot dequantize: {kinds}; start from "
            "another file of the model"
        )


def _quality_note(tensors: Mapping[str, GgufTensor]) -> tuple[str, ...]:
    """Return a note on the quantized types of the file, if there are any."""
    counts: Counter[Any] = Counter(t.type for t in tensors.values() if t.is_quantized)
    if not counts:
        return ()
    kinds = ", ".join(f"{count} from {kind}" for kind, count in counts.most_common())
    return (
        f"the source is a GGUF with quantized weights ({kinds}), and the result cannot be better "
        "than the source; start from the 16-bit file if you can",
    )
