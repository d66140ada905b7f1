"""What the header of a calibration file holds, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, FiniteFloat, NonNegativeInt

from ..files.stored_data import StoredData

# Counts of tokens and calls are multiplied and summed in 64 bits.
_MOST = 1 << 48

Count = Annotated[NonNegativeInt, Field(le=_MOST)]
Numbers = Annotated[dict[str, list[float]], Field(default_factory=dict)]


def _require_id(value: str) -> str:
    if len(value) != 32 or not set(value) <= set("0123456789abcdef"):
        raise ValueError("must be 32 hex digits")
    return value


class StoredFingerprint(StoredData):
    """The data of `ModelFingerprint.to_json`."""

    shapes: dict[str, list[Count]]
    probe: dict[str, list[float]]
    matrices: Numbers


class StoredRun(StoredData):
    """The data of `RunRecord.to_json`."""

    id: str
    started: str
    prompts: list[str]
    calls: Count
    settings: dict[str, Any]
    interrupted: bool = False


class StoredPart(StoredData):
    """Second moments of one run, in a file of their own that is named by the id."""

    id: Annotated[str, AfterValidator(_require_id)]
    run: str
    tokens: Count
    repeats: bool


class StoredInput(StoredData):
    """The input that the named layers share."""

    layers: list[str]
    in_features: Count
    calls: Count
    tokens: Count
    tokens_used: Count
    row_limit: FiniteFloat | None
    moments: Annotated[list[StoredPart], Field(default_factory=list)]


class StoredCalibration(StoredData):
    """The header of a calibration file."""

    version: Count
    fingerprint: StoredFingerprint
    runs: list[StoredRun]
    rows_per_layer: Count
    inputs: dict[str, StoredInput]
    tool_versions: Annotated[list[str], Field(default_factory=list)]
    changed_layers: Annotated[list[str], Field(default_factory=list)]
