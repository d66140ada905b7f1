"""The record of how a checkpoint was made, which this tool stores in its header."""

from __future__ import annotations

import os
import time
import zlib
from datetime import datetime, timezone
from typing import Any

import torch

from ..files.json_file import parse_object
from ..sources import TensorSource

PROVENANCE = "nvfp4_foundry"
_EPOCH_DIGITS = 10


def read_provenance(source: TensorSource) -> dict[str, Any]:
    """Return the record of how the file was made; empty if another tool wrote it."""
    return parse_object(source.metadata.get(PROVENANCE))


def created_now() -> str:
    """Return the time for the header: now, or ``SOURCE_DATE_EPOCH`` for files of equal bytes.

    See https://reproducible-builds.org/specs/source-date-epoch/.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    seconds = int(text) if text.isdecimal() and len(text) <= _EPOCH_DIGITS else time.time()
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def tensor_digest(tensor: torch.Tensor) -> str:
    """Return the CRC-32 of a tensor's bytes in hex, to check a tensor that the source lacks."""
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return f"{zlib.crc32(values.view(torch.uint8).numpy().tobytes()):08x}"
