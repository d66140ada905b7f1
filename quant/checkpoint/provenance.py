"""What this tool records in a checkpoint of how it was made."""

from __future__ import annotations

import json
import zlib
from typing import Any

import torch

from ..sources import TensorSource

PROVENANCE = "nvfp4_foundry"


def read_provenance(source: TensorSource) -> dict[str, Any]:
    """Return what this tool recorded when it wrote the file; empty if another tool did."""
    try:
        data = json.loads(source.metadata.get(PROVENANCE, "{}"))
    except json.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {}


def tensor_digest(tensor: torch.Tensor) -> str:
    """Return the CRC-32 of a tensor's bytes in hex, to recognise a tensor that has no source."""
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return f"{zlib.crc32(values.view(torch.uint8).numpy().tobytes()):08x}"
