"""A sensitivity of made-up errors, for tests of mixes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from nvfp4_foundry.quant.planning import take_inventory
from nvfp4_foundry.quant.sensitivity.artefact import (
    CandidateErrors,
    LayerSensitivity,
    Sensitivity,
    save_sensitivity,
)
from nvfp4_foundry.quant.sources import open_source


def save_made_up(path: Path, model: str, errors: Mapping[str, float]) -> Path:
    """Save errors by format that vary by a factor of four between the layers of a model."""
    rng = random.Random(0)
    with open_source(model) as source:
        layers = {
            la.name: LayerSensitivity(
                la.name,
                la.shape,
                None,
                {f: CandidateErrors(w4a4=e * rng.uniform(0.5, 2)) for f, e in errors.items()},
            )
            for la in take_inventory(source).of_kind("linear")
        }
        save_sensitivity(Sensitivity(source.fingerprint(), "weighted", layers), path)
    return path
