"""What a GGUF file says of its tensors, without their data.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The ``gguf`` package parses it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

from ..errors import SourceError

_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
_FLOATS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
# The first digit of every quantized type's name: Q4_K, IQ2_XXS, TQ1_0, MXFP4, NVFP4.
_DIGITS = re.compile(r"[1-9]\d*")


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a GGUF file.

    Attributes:
        name: as in the file.
        type: ``F32``, ``Q4_K``, ... by GGML's name.
        shape: outermost dimension first; the original one where the file stores it reshaped.
        offset: of the data, from the beginning of the file.
        nbytes: of the data.
        block_size: values encoded together, and ``block_bytes`` how long each such block is.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    block_size: int
    block_bytes: int

    @property
    def bits(self) -> int:
        """Bits of one value by the type's name: 4 for every 4-bit type, its scales aside."""
        return bits_of(self.type)

    @property
    def is_quantized(self) -> bool:
        """Whether values are encoded in blocks."""
        return self.block_size > 1


@dataclass(frozen=True)
class GgufHeader:
    """A GGUF file's tensors by name; ``architecture`` is None where the file names none."""

    path: Path
    architecture: str | None
    tensors: Mapping[str, GgufTensor]


def bits_of(type_name: str) -> int:
    """Return the bits of a type as its name gives them: Q4_0, Q4_K, IQ4_XS and MXFP4 have 4."""
    found = _DIGITS.search(type_name)
    return _FLOATS.get(type_name) or (int(found[0]) if found else 0)


def read_gguf_header(path: Path) -> GgufHeader:
    """Parse a GGUF file's header.

    Raises:
        SourceError: no GGUF file, damaged, of the other byte order, or with tensors of types the
            installed ``gguf`` package does not know.
    """
    try:
        size = path.stat().st_size
        if not size:
            raise SourceError(f"{path} is not a GGUF file: it is empty")
        reader = _reader_class()(path)
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise SourceError(
            f"{path} is damaged, truncated, or no GGUF file that gguf {version('gguf')} can read: "
            f"{error}"
        ) from error
    if getattr(reader, "byte_order", "I") != "I":
        raise SourceError(f"{path} was written for machines of the other byte order")
    field = reader.get_field("general.architecture")
    architecture = str(field.contents()) if field is not None else None
    tensors = {t.name: _tensor(t, reader, path, size) for t in reader.tensors}
    return GgufHeader(path, architecture, tensors)


def _tensor(tensor: Any, reader: Any, path: Path, file_size: int) -> GgufTensor:
    import gguf

    stored = tuple(int(n) for n in reversed(tensor.shape))
    field = reader.get_field(f"{_ORIGINAL_SHAPE}{tensor.name}")
    shape = stored if field is None else tuple(int(n) for n in field.contents())
    if prod(shape) != prod(stored):
        raise SourceError(
            f"{path}: tensor {tensor.name} holds {stored}, which cannot be its original {shape}"
        )
    offset, nbytes = int(tensor.data_offset), int(tensor.n_bytes)
    if offset + nbytes > file_size:
        raise SourceError(
            f"{path} is truncated: tensor {tensor.name} ends at byte {offset + nbytes}, the file "
            f"has {file_size}. Fetch it again."
        )
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[tensor.tensor_type]
    name = tensor.tensor_type.name
    return GgufTensor(tensor.name, name, shape, offset, nbytes, block_size, block_bytes)


@lru_cache(maxsize=1)
def _reader_class() -> type[Any]:
    """Return the package's reader, stopping at the end of the file.

    By itself it goes on with empty values there: a damaged count would keep it busy for ever.
    """
    try:
        import gguf
    except ImportError as error:
        raise SourceError(
            "GGUF files need the Python package gguf; install it with 'pip install gguf' in the "
            "Python that runs this"
        ) from error

    class HeaderReader(gguf.GGUFReader):
        def _get(self, offset: Any, dtype: Any, count: Any = 1, *args: Any, **kwargs: Any) -> Any:
            values = super()._get(offset, dtype, count, *args, **kwargs)
            if len(values) < int(count):
                raise ValueError(f"it ends early, at byte {len(self.data)}")
            return values

    return HeaderReader
