"""What a sensitivity file holds, as pydantic models."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from ..calibration.stored_header import Count, StoredFingerprint
from ..errors import FormatError
from ..files.stored_data import StoredData
from ..formats import get_format

# JSON has no tuples, and strict models would take none of its lists for one.
Pair = Annotated[tuple[float, float], Field(strict=False)]


def _require_format(name: str) -> str:
    try:
        get_format(name)
    except FormatError as error:
        raise ValueError(f"{error}; it may be of a newer version, so update the pack") from None
    return name


class StoredErrors(StoredData):
    """The data of `CandidateErrors`; the shifts are pairs of a sigma and a shift."""

    weight: float | None
    w4a16: float | None
    w4a4: float | None
    latent_by_sigma: list[Pair]
    is_estimated: bool = False  # absent in older files


class StoredLayer(StoredData):
    """The data of `LayerSensitivity`."""

    name: str
    shape: list[Count]
    input_id: str | None
    candidates: dict[Annotated[str, AfterValidator(_require_format)], StoredErrors]


class StoredWhole(StoredData):
    """The data of `WholeShift`."""

    formats: dict[str, Annotated[str, AfterValidator(_require_format)]]
    shift: Annotated[float, Field(ge=0)]
    samplings: Count


class StoredSensitivity(StoredData):
    """The data of `Sensitivity.to_json`."""

    version: Count
    fingerprint: StoredFingerprint
    rounding: str
    layers: list[StoredLayer]
    whole: list[StoredWhole] = Field(default_factory=list)  # absent in older files
