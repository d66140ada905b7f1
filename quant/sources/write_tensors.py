"""Write tensors as a safetensors file to an open file, without a copy of them in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import BinaryIO

import torch

from .safetensors_file import DTYPE_NAMES


def write_tensors(
    file: BinaryIO,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors in their order. On the CPU and contiguous, they are not copied.

    The library's ``save_file`` takes no open file, and makes one of its own under another name. Its
    ``save`` takes twice the memory, and never frees a small object for each new number of bytes.

    Args:
        file: where to write.
        tensors: those with the widest elements come first, so that all are aligned.
        metadata: the header's string map.

    Raises:
        OSError: the disk failed.
    """
    entries: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    position = 0
    for name, tensor in tensors.items():
        end = position + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header = header.ljust(len(header) + -len(header) % 8)  # readers expect aligned data
    file.write(struct.pack("<Q", len(header)) + header)
    for tensor in tensors.values():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            file.write(flat.view(torch.uint8).numpy().data)
