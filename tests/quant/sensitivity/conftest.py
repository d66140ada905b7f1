"""The toy model as a source, its calibration and its measured sensitivity."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CalibrationStatistics
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sources import StateDictSource
from torch import nn

from tests.helpers.probing import random_input


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
