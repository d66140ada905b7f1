"""The record of how a checkpoint was made, which this tool stores in its header."""

from __future__ import annotations

import os
import time
import zlib
from datetime import datetime, timezone
from typing import Any

import torch
from pydantic import Field, ValidationError

from ..files.json_file import parse_object
from ..files.stored_data import StoredData
from ..sources import TensorSource

PROVENANCE = "nvfp4_foundry"
_EPOCH_DIGITS = 10


class _Record(StoredData):
    """The fields that readers know. Files of earlier versions have ``errors`` but no ``layers``."""

    tool: str = ""
    created: str = ""
    source: str = ""
    source_digest: str = ""
    loras: list[dict[str, Any]] = Field(default_factory=list)
    architecture: str = ""
    recipe: dict[str, Any] = Field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    roundings: dict[str, int] = Field(default_factory=dict)
    corrected_biases: dict[str, str] = Field(default_factory=dict)
    whole_checkpoint: bool = False
    needs_comfyui: str = ""
    bytes_before: int = Field(1, gt=0)
    layers: dict[str, Any] = Field(default_factory=dict)
    errors: dict[str, Any] = Field(default_factory=dict)
    rescaled: list[Any] = Field(default_factory=list)


def read_provenance(source: TensorSource) -> dict[str, Any]:
    """Return the record of how the file was made; empty if another tool wrote it.

    The header is untrusted: a known field of another type than `_Record` has is left out. Fields of
    newer versions are kept.
    """
    data = parse_object(source.metadata.get(PROVENANCE))
    try:
        _Record.model_validate(data)
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors(include_url=False)}
        return {name: value for name, value in data.items() if name not in wrong}
    return data


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
