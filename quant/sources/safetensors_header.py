"""Parse and check the header of a safetensors file.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import SourceError
from ..files.json_file import parse_json
from .base import TensorInfo

# The longest header that is read, in bytes. A model of 300,000 tensors has half of it.
_MAX_HEADER = 64_000_000
# No tensor has more axes, and no axis of an empty tensor is longer. Both keep loops over shapes
# short in damaged files.
_MOST_AXES, _LONGEST_EMPTY = 16, 1 << 31
# Beyond this many characters a name is an attack on whatever compares or prints names.
LONGEST_NAME = 1000
_SHOWN, _NAME_SHOWN = 120, 40

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
        header = parse_json(_read(file, length), unique_names=True, largest=_MAX_HEADER)
    except ValueError as error:
        raise SourceError(
            f"{path} is damaged or not a safetensors file: bad header ({_short(error)}); "
            "fetch it again"
        ) from error
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
        require_short_name(name, path)
        tensors[name], offsets[name] = _parse_entry(name, entry, 8 + length, size, path)
    _require_apart(tensors, offsets, path)
    return {str(k): str(v) for k, v in metadata.items()}, tensors, offsets


def _parse_entry(
    name: str, entry: Any, data_start: int, file_size: int, path: Path
) -> tuple[TensorInfo, int]:
    try:
        dtype = DTYPES[entry["dtype"]]
        shape = tuple(_whole(n) for n in entry["shape"])
        begin, end = (_whole(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{path}: the header entry of tensor {_short(name)} is not valid, or has an unknown "
            f"data type: {_short(repr(entry))}"
        ) from error
    if min((begin, *shape)) < 0:
        raise SourceError(
            f"{path} is damaged: tensor {name} has a negative size or offset: "
            f"{_short(repr(entry))}; fetch it again"
        )
    if len(shape) > _MOST_AXES or (0 in shape and max(shape) > _LONGEST_EMPTY):
        raise SourceError(
            f"{path} is damaged: tensor {name} has an impossible shape: {_short(repr(shape))}; "
            "fetch it again"
        )
    info = TensorInfo(name, shape, dtype)
    if end - begin != info.nbytes:
        raise SourceError(
            f"{path} is damaged: tensor {name} has {_short(end - begin)} bytes, not "
            f"{_short(info.nbytes)}; fetch it again"
        )
    if data_start + end > file_size:
        raise SourceError(
            f"{path} is truncated: tensor {name} ends at byte {_short(data_start + end)}, "
            f"but the file has only {file_size} bytes; fetch it again"
        )
    return info, data_start + begin


def require_short_name(name: str, path: Path) -> None:
    """Refuse a name that no tensor of a model has.

    Raises:
        SourceError: it is longer than `LONGEST_NAME`.
    """
    if len(name) > LONGEST_NAME:
        raise SourceError(
            f"{path} is damaged: it has a tensor whose name of {len(name)} characters begins "
            f"{name[:_NAME_SHOWN]!r}; fetch it again"
        )


def _read(file: BinaryIO, length: int) -> bytes:
    """Read exactly this many bytes, which a raw file may return in parts."""
    parts: list[bytes] = []
    while length > 0 and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _whole(value: Any) -> int:
    if type(value) is not int:  # which excludes True
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _require_apart(
    tensors: Mapping[str, TensorInfo], offsets: Mapping[str, int], path: Path
) -> None:
    """Refuse tensors that share bytes."""
    filled = sorted((offsets[name], name) for name, info in tensors.items() if info.nbytes)
    for (start, first), (following, second) in pairwise(filled):
        if start + tensors[first].nbytes > following:
            raise SourceError(
                f"{path} is damaged: the tensors {first} and {second} overlap; fetch it again"
            )


def _short(value: object) -> str:
    """Return a text that fits into a message."""
    try:
        text = str(value)
    except ValueError:  # Python refuses to write a number of many thousand digits
        return "a number that is too long to write"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
