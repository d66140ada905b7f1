"""A toy model whose calibration has Hessians and held-out runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
)
from nvfp4_foundry.quant.sources import SafetensorsFile
from safetensors.torch import save_file

from tests.helpers.observed_inputs import Toy, low_rank


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[tuple[SafetensorsFile, CalibrationStatistics, Path]]:
    torch.manual_seed(0)
    model, path = Toy(), tmp_path / "toy.safetensors"
    save_file({n: t.to(torch.bfloat16) for n, t in model.state_dict().items()}, path)
    collector = ActivationCollector(CollectorSettings(200, moments_budget_bytes=2**28))
    draw = low_rank(offset=3.0)
    with SafetensorsFile(path) as source, torch.no_grad():
        for run in range(2):
            collector.new_run(f"prompt {run}", run_id=f"{run:032x}")
            with collector.observe(model):
                for call in range(4):
                    model(draw(10 * run + call))
        yield source, collector.snapshot(source.fingerprint()), path
