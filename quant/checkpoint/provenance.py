"""The record of how a checkpoint was made, which this tool stores in its header."""

from __future__ import annotations

import zlib
from typing import Any

import torch

from ..files.json_file import parse_object
from ..sources import TensorSource

PROVENANCE = "nvfp4_foundry"


def read_provenance(source: TensorSource) -> dict[str, Any]:
    """Return the record of how the file was made; empty if another tool wrote it."""
    return parse_object(source.metadata.get(PROVENANCE))


def tensor_digest(tensor: torch.Tensor) -> str:
    """Return the CRC-32 of a tensor's bytes in hex, to check a tensor that the source lacks."""
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return f"{zlib.crc32(values.view(torch.uint8).numpy().tobytes()):08x}"
