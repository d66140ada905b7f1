"""Several ranks write the same files as one, and tell the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CollectorSettings,
    save_statistics,
)
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file

from tests.helpers.conversions import Toy
from tests.helpers.on_ranks import bytes_of, make, torchrun
from tests.quant.conftest import ToyModel

PREFIX = "model.diffusion_model."


@pytest.fixture
def folder(tmp_path: Path, toy_model: ToyModel, toy_wan: Toy) -> Path:
    """A model, its calibration with Hessians, and a full checkpoint."""
    save_file(toy_model.state_dict(), tmp_path / "model.safetensors")
    collector = ActivationCollector(CollectorSettings(moments_budget_bytes=1 << 30))
    for run in range(2):
        collector.new_run(f"prompt {run}")
        with torch.no_grad(), collector.observe(toy_model):
            for step in range(4):
                collector.begin_call(1 - step / 4, [0])
                toy_model(torch.randn(1, 200, 32))
    with open_source(tmp_path / "model.safetensors") as source:
        statistics = collector.snapshot(source.fingerprint())
    save_statistics(statistics, tmp_path / "calibration.safetensors")
    beside = {f"first_stage_model.{n}.weight": torch.randn(8, 4) for n in range(5)}
    model = {PREFIX + name: tensor for name, tensor in toy_wan(blocks=2).items()}
    save_file({**model, **beside}, tmp_path / "whole.safetensors")
    return tmp_path


def test_bytes_and_reports_equal_those_of_one_rank(folder: Path) -> None:
    alone = folder / "alone"
    alone.mkdir()
    make(folder, alone)
    started = {}
    for ranks in (2, 3):
        (folder / str(ranks)).mkdir()
        started[ranks] = torchrun(ranks, "tests.helpers.on_ranks", folder, folder / str(ranks))
    for ranks, process in started.items():
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        made = {path.name for path in (folder / str(ranks)).iterdir()}
        files = {f"{name}.safetensors" for name in ("max", "gptq", "whole")}
        assert made == files | {f"told-{rank}.json" for rank in range(ranks)}
        for name in files:
            assert bytes_of(folder / str(ranks) / name) == bytes_of(alone / name), name
        told = (alone / "told-0.json").read_text()
        assert '"rounding": "gptq"' in told
        for rank in range(ranks):
            assert (folder / str(ranks) / f"told-{rank}.json").read_text() == told
