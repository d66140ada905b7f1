"""Read the header of a GGUF file: its tensors without their data.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The reader of the ``gguf``
package is not used. It takes 18 seconds and 700 MB for the word list of a text encoder, and does
not finish if a count is damaged.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import SourceError
from .safetensors_header import require_short_name

_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MOST_DIMENSIONS = 8
# No axis of an empty tensor is longer, which keeps loops over shapes short in damaged files.
_LONGEST_EMPTY = 1 << 31
# The most tensors of any model, times a hundred, and the longest text or word of a word list.
_MOST_TENSORS, _LONGEST_TEXT = 1_000_000, 64_000_000
# Struct codes of the kinds of values, by number. Strings and arrays are read separately.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?",
            10: "Q", 11: "q", 12: "d"}  # fmt: skip
_STRING, _ARRAY = 8, 9
_FLOATS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
# The bits in the name of a quantized type: Q4_K, IQ2_XXS, TQ1_0, MXFP4, NVFP4.
_DIGITS = re.compile(r"[1-9]\d*")


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a GGUF file.

    Attributes:
        name: the name in the file.
        type: GGML's name of the type: ``F32``, ``Q4_K``, ...
        shape: outermost dimension first; the original shape if the file stores another one.
        offset: position of the data in the file, in bytes.
        nbytes: size of the data in bytes.
        block_size: number of values that are encoded together.
        block_bytes: size of such a block in bytes.
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
        """Bits of one value without scales, as in the type's name: 4 for every 4-bit type."""
        return bits_of(self.type)

    @property
    def is_quantized(self) -> bool:
        """Whether values are encoded in blocks."""
        return self.block_size > 1


@dataclass(frozen=True)
class GgufHeader:
    """The tensors of a GGUF file by name; ``architecture`` is None if the file names none."""

    path: Path
    architecture: str | None
    tensors: Mapping[str, GgufTensor]


def bits_of(type_name: str) -> int:
    """Return the bits in the name of a type: 4 for Q4_0, Q4_K, IQ4_XS and MXFP4."""
    found = _DIGITS.search(type_name)
    return _FLOATS.get(type_name) or (int(found[0]) if found else 0)


def read_gguf_header(path: Path) -> GgufHeader:
    """Parse a GGUF file's header.

    Raises:
        SourceError: the file is not a GGUF file, is damaged or has the other byte order, or the
            installed ``gguf`` package does not know the type of a tensor.
    """
    try:
        with path.open("rb") as file:
            return _parse(_Reader(file, path), path)
    except OSError as error:
        raise SourceError(f"cannot open {path}: {error.strerror or error}") from error


class _Reader:
    """Reads numbers and strings, and checks that they do not cross the end of the file."""

    def __init__(self, file: BinaryIO, path: Path):
        self._file, self.path = file, path
        self.size = file.seek(0, 2)
        file.seek(0)

    def bytes(self, count: int) -> bytes:
        self._require(count)
        return self._file.read(count)

    def _require(self, count: int) -> None:
        if count > self.size - self._file.tell():
            raise self.damaged(f"it ends inside its header, at byte {self.size}")

    def skip(self, count: int) -> None:
        self._require(count)
        self._file.seek(count, 1)

    def number(self, code: str) -> Any:
        (value,) = struct.unpack(f"<{code}", self.bytes(struct.calcsize(f"<{code}")))
        return value

    def numbers(self, count: int, code: str) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{code}")
        return struct.unpack(f"<{count}{code}", self.bytes(count * size))

    def string(self) -> str:
        try:
            length = self.number("Q")
            if length > _LONGEST_TEXT:
                raise self.damaged(f"it holds a text of {length} bytes")
            return self.bytes(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.damaged(f"a name is not valid text ({error})") from error

    def position(self) -> int:
        return self._file.tell()

    def damaged(self, why: str) -> SourceError:
        return SourceError(
            f"{self.path} is a damaged or truncated GGUF file: {why}; fetch it again"
        )


def _parse(reader: _Reader, path: Path) -> GgufHeader:
    if reader.size < 24 or reader.bytes(4) != b"GGUF":
        raise SourceError(f"{path} is not a GGUF file")
    version = reader.number("I")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
        what = "of the other byte order" if swapped else f"of version {version}"
        raise SourceError(
            f"{path} is a GGUF file {what}, which is not supported; start from another file of "
            "the model"
        )
    tensor_count, field_count = reader.numbers(2, "Q")
    if tensor_count > _MOST_TENSORS or field_count > _MOST_TENSORS:
        raise reader.damaged(f"it claims {tensor_count} tensors and {field_count} fields")
    fields = dict(_read_field(reader) for _ in range(field_count))
    records = [_read_record(reader) for _ in range(tensor_count)]
    alignment = fields.get("general.alignment") or _ALIGNMENT
    if not isinstance(alignment, int) or alignment < 1:
        raise reader.damaged(f"its alignment is {alignment}")
    data_start = -(-reader.position() // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, stored, kind, offset in records:
        if name in tensors:
            raise reader.damaged(f"it holds tensor {name} twice")
        shape = fields.get(f"{_ORIGINAL_SHAPE}{name}") or stored
        tensors[name] = _tensor(reader, path, name, stored, shape, kind, data_start + offset)
    architecture = fields.get("general.architecture")
    return GgufHeader(path, str(architecture) if architecture is not None else None, tensors)


def _read_field(reader: _Reader) -> tuple[str, Any]:
    """Return a field's name and value; None for arrays other than original shapes."""
    name = reader.string()
    kind = reader.number("I")
    if kind == _ARRAY:
        return name, _read_array(reader, name)
    if kind == _STRING:
        return name, reader.string()
    if kind not in _SCALARS:
        raise reader.damaged(f"field {name} has the unknown kind {kind}")
    return name, reader.number(_SCALARS[kind])


def _read_array(reader: _Reader, name: str) -> tuple[int, ...] | None:
    kind, count = reader.number("I"), reader.number("Q")
    if kind == _STRING:
        for _ in range(count):  # for example the word list of a text encoder
            reader.skip(reader.number("Q"))
        return None
    if kind not in _SCALARS:
        raise reader.damaged(f"field {name} is an array with the unknown kind {kind}")
    if not name.startswith(_ORIGINAL_SHAPE):
        reader.skip(count * struct.calcsize(_SCALARS[kind]))
        return None
    if not 1 <= count <= _MOST_DIMENSIONS:
        raise reader.damaged(f"{name} has {count} dimensions")
    return tuple(int(n) for n in reader.numbers(count, _SCALARS[kind]))


def _read_record(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """Return a tensor's name, shape, type number and offset."""
    name = reader.string()
    require_short_name(name, reader.path)
    dimensions = reader.number("I")
    if dimensions > _MOST_DIMENSIONS:
        raise reader.damaged(f"tensor {name} has {dimensions} dimensions")
    shape = tuple(reversed(reader.numbers(dimensions, "Q")))
    return name, shape, reader.number("I"), reader.number("Q")


def _tensor(
    reader: _Reader,
    path: Path,
    name: str,
    stored: tuple[int, ...],
    shape: tuple[int, ...],
    kind: int,
    offset: int,
) -> GgufTensor:
    gguf = require_gguf()
    try:
        quantized = gguf.GGMLQuantizationType(kind)
    except ValueError as error:
        raise SourceError(
            f"{path}: tensor {name} is of type {kind}, which the installed gguf package does not "
            "know; update the package with 'pip install -U gguf'"
        ) from error
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[quantized]
    if not isinstance(shape, tuple) or min(shape, default=0) < 0 or prod(shape) != prod(stored):
        raise SourceError(
            f"{path}: tensor {name} holds {stored}, which cannot be its original shape {shape}; "
            "fetch the file again"
        )
    if 0 in stored and max(stored) > _LONGEST_EMPTY:
        raise reader.damaged(f"tensor {name} has the impossible shape {stored}")
    if stored and stored[-1] % block_size:
        raise reader.damaged(f"the rows of {name} are not whole blocks of {quantized.name}")
    nbytes = prod(stored) // block_size * block_bytes
    if offset + nbytes > reader.size:
        raise SourceError(
            f"{path} is truncated: tensor {name} ends at byte {offset + nbytes}, but the file has "
            f"only {reader.size} bytes; fetch it again"
        )
    return GgufTensor(name, quantized.name, shape, offset, nbytes, block_size, block_bytes)


def require_gguf() -> Any:
    """Return the ``gguf`` package.

    Raises:
        SourceError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise SourceError(
            "GGUF files need the Python package gguf; run 'pip install gguf' with the Python that "
            "runs NVFP4 Foundry"
        ) from error
    return gguf
