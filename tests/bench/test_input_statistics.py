"""The statistics of inputs are those of inputs made by hand."""

from __future__ import annotations

import pytest
import torch
from input_statistics import InputStatistics, input_statistics, kind_of
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings
from nvfp4_foundry.quant.fingerprint import ModelFingerprint


def statistics_of(rows: torch.Tensor) -> InputStatistics:
    """Return the statistics of a layer that received these rows."""
    model = torch.nn.Sequential(torch.nn.Linear(rows.shape[1], 16))
    collector = ActivationCollector(CollectorSettings(rows_per_layer=len(rows)))
    collector.new_run("rows")
    with collector.observe(model), torch.no_grad():
        collector.begin_call(1.0, [0])
        model(rows)
    return input_statistics(collector.snapshot(ModelFingerprint({}, {})).layers["0"])


def draw(count: int = 1000) -> torch.Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(0))


def test_white_inputs_have_no_mean_no_outliers_and_no_spread() -> None:
    found = statistics_of(draw())
    assert found.in_features == 64
    assert found.mean_share == pytest.approx(0, abs=2e-3)
    assert (found.outliers, found.outlier_share) == (0, 0)
    assert found.spread == pytest.approx(1.0, abs=0.2)


def test_the_share_of_the_mean() -> None:
    """A mean of 1 in each channel is half of the energy of inputs with variance 1."""
    assert statistics_of(draw() + 1).mean_share == pytest.approx(0.5, abs=0.02)


def test_a_few_rows_do_not_look_like_a_mean() -> None:
    assert statistics_of(draw(8)).mean_share < 0.05


def test_outlier_channels_are_counted_with_their_energy() -> None:
    rows = draw()
    rows[:, [3, 40]] *= 10  # 100 times the energy
    rows[:, 5] *= 4  # 16 times
    found = statistics_of(rows)
    assert found.outliers == 2
    assert found.outlier_share == pytest.approx(200 / (61 + 16 + 200), rel=0.1)


def test_the_spread_of_channels() -> None:
    scale = torch.ones(64)
    scale[:16], scale[48:] = 0.5, 3.0
    assert statistics_of(draw() * scale).spread == pytest.approx(36, rel=0.15)


def test_kinds_are_names_without_the_number_of_the_block() -> None:
    assert kind_of("blocks.11.ffn.2") == "blocks.#.ffn.2"
