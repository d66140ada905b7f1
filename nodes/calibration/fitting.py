"""The calibration that fits a model, for errors about one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...quant.calibration import load_fingerprint
from ...quant.errors import CalibrationError, Remedy
from ...quant.fingerprint import ModelFingerprint
from ...quant.sources import TensorSource
from ..files.artefacts import CALIBRATIONS


@contextmanager
def offering_one_that_fits(source: TensorSource) -> Iterator[None]:
    """Give errors about the calibration of another model a button for one of this model."""
    try:
        yield
    except CalibrationError as error:
        error.remedy = error.remedy or _use_instead(source.fingerprint())
        raise


def _use_instead(fingerprint: ModelFingerprint) -> Remedy | None:
    """Return the remedy to use the newest saved calibration of a model, if there is one."""
    for path in CALIBRATIONS.newest():
        saved = load_fingerprint(path)
        if saved is not None and saved.difference(fingerprint) is None:
            return Remedy(f"Use calibration {path.stem}", "calibration", path.stem)
    return None
