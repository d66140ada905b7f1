"""The toy model as a source, its calibration and its measured sensitivity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CalibrationStatistics
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probe import LatentProbe
from nvfp4_foundry.quant.sources import StateDictSource
from torch import nn

from tests.helpers.probing import FORMATS, random_input


@pytest.fixture
def source(toy_model: nn.Module) -> StateDictSource:
    return StateDictSource(toy_model.state_dict())


@pytest.fixture
def statistics(toy_model: nn.Module, source: StateDictSource) -> CalibrationStatistics:
    """Return a calibration of all layers of the toy model over four inputs."""
    collector = ActivationCollector()
    with torch.no_grad(), collector.observe(toy_model):
        for seed in range(4):
            collector.begin_call(0.5, [0])
            toy_model(random_input(seed))
    return collector.snapshot(source.fingerprint())


@pytest.fixture
def sensitivity(source: StateDictSource, statistics: CalibrationStatistics) -> Sensitivity:
    return measure_sensitivity(source, statistics, rounding="max")


@pytest.fixture
def new(source: StateDictSource, statistics: CalibrationStatistics) -> Callable[..., LatentProbe]:
    """Return a function that makes a probe, as a new process would."""
    measured = measure_sensitivity(source, statistics, FORMATS, rounding="max")

    def make(**options: Any) -> LatentProbe:
        options = {"formats": FORMATS, "statistics": statistics, **options}
        return LatentProbe(source, measured, **options)

    return make
