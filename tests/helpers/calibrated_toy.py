"""A toy model in a folder, with a calibration that holds Hessians."""

from __future__ import annotations

from pathlib import Path

import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings, save_statistics
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file


def save_calibrated(model: torch.nn.Module, folder: Path) -> None:
    """Write ``model.safetensors``, and its ``calibration.safetensors`` of two runs.

    ``model`` takes inputs ``[1, T, 32]``.
    """
    save_file(model.state_dict(), folder / "model.safetensors")
    collector = ActivationCollector(CollectorSettings(moments_budget_bytes=1 << 30))
    for run in range(2):
        collector.new_run(f"prompt {run}")
        with torch.no_grad(), collector.observe(model):
            for step in range(4):
                collector.begin_call(1 - step / 4, [0])
                model(torch.randn(1, 200, 32))
    with open_source(folder / "model.safetensors") as source:
        statistics = collector.snapshot(source.fingerprint())
    save_statistics(statistics, folder / "calibration.safetensors")
