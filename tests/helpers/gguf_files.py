"""GGUF files for tests, written by the ``gguf`` package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch

#: Every type the package dequantizes, float types aside.
BLOCK_TYPES = tuple(t.name for t in gguf.quants._type_traits if gguf.GGML_QUANT_SIZES[t][0] > 1)
#: Types the package can also write.
WRITABLE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4")

TypeOf = Callable[[str, torch.Tensor], str]


def write_gguf(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    type_of: TypeOf | str = "F32",
    *,
    architecture: str | None = "wan",
    flattened: tuple[str, ...] = (),
) -> Path:
    """Write tensors, each in the type ``type_of`` gives; types nobody writes get blocks of zeros.

    ``flattened`` are stored as two dimensions, with their own as ``comfy.gguf.orig_shape``.
    """
    writer = gguf.GGUFWriter(str(path), architecture or "none")
    if architecture is None:
        del writer.kv_data[0]["general.architecture"]
    for name, tensor in tensors.items():
        kind = type_of if isinstance(type_of, str) else type_of(name, tensor)
        values = tensor.float().numpy()
        if name in flattened:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(values.shape))
            values = values.reshape(-1, values.shape[0])
        quantized = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, encoded(values, kind), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def encoded(values: np.ndarray, kind: str) -> np.ndarray:
    """Return the bytes of some rows in a type."""
    quantized = gguf.GGMLQuantizationType[kind]
    if kind in WRITABLE:
        return gguf.quantize(np.ascontiguousarray(values), quantized)
    size, nbytes = gguf.GGML_QUANT_SIZES[quantized]
    return np.zeros((*values.shape[:-1], values.shape[-1] // size * nbytes), dtype=np.uint8)


def write_blocks(path: Path, kinds: Mapping[str, int], *, rows: int = 3) -> Path:
    """Write tensors of random blocks, named by their types: ``rows`` of so many blocks each."""
    writer = gguf.GGUFWriter(str(path), "wan")
    rng = np.random.default_rng(0)
    for kind, blocks in kinds.items():
        quantized = gguf.GGMLQuantizationType[kind]
        nbytes = gguf.GGML_QUANT_SIZES[quantized][1]
        raw = rng.integers(0, 256, (rows, blocks * nbytes), dtype=np.uint8)
        writer.add_tensor(kind, raw, raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def wan_types(name: str, tensor: torch.Tensor) -> str:
    """Return the type of a WAN tensor: blocks in Q4_0, their value projections in Q8_0."""
    if tensor.dim() != 2:
        return "F32"
    return "Q8_0" if name.endswith("v.weight") else "Q4_0" if "blocks" in name else "F16"
