"""Views of a calibration: coverage, sigma bins, branches, summary."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    amax_by_branch,
    amax_by_sigma,
)
from nvfp4_foundry.quant.errors import CalibrationError


def _call_often(fingerprint, calls: dict[str, int], model_calls: int = 0):
    linears = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in calls})
    collector = ActivationCollector()
    with torch.no_grad(), collector.observe(linears):
        for _ in range(model_calls):
            collector.begin_call(1.0, [0])
        for name, count in calls.items():
            for _ in range(count):
                linears[name](torch.randn(2, 4))
    return collector.snapshot(fingerprint)


def test_coverage_names_what_is_missing(fingerprint) -> None:
    statistics = _call_often(fingerprint, {"a": 52, "b": 51, "c": 10, "often": 104, "z": 0})
    report = statistics.coverage(["z", "a", "b", "c", "often", "absent"])
    assert report.covered == ("a", "b", "often")
    assert report.uncovered == ("absent", "z")
    assert report.partial == {"c": 10}
    assert not report.complete
    assert statistics.coverage(["a", "b"]).complete
    json.dumps(report.to_json())


def test_coverage_knows_how_often_the_model_ran(fingerprint) -> None:
    # A compiled model lost every hook after its first calls: the median sees nothing wrong.
    statistics = _call_often(fingerprint, {"a": 10, "b": 10}, model_calls=52)
    report = statistics.coverage()
    assert report.partial == {"a": 10, "b": 10}
    assert report.reference_calls == 52


def test_amax_and_percentiles(fingerprint) -> None:
    statistics = _call_often(fingerprint, {"a": 30})
    layer = statistics.layers["a"]
    assert statistics.amax("a") == float(layer.call_amax.max())
    assert statistics.percentile("a", 50) == pytest.approx(np.median(layer.call_amax))
    assert statistics.percentile("a", 100) == statistics.amax("a")
    with pytest.raises(CalibrationError, match="b was not observed"):
        statistics.amax("b")


def test_sigma_bins_and_branches(sample_statistics) -> None:
    layer = sample_statistics(calls=10).layers["q"]
    layer = replace(
        layer,
        sigma=np.array([*np.repeat(np.arange(10, 0, -1), 2)], np.float32) / 10,
        call_amax=np.arange(20, dtype=np.float32) + 1,
    )
    halves = amax_by_sigma(layer, bins=2)
    assert [(b.calls, b.amax, b.median) for b in halves] == [(10, 20.0, 15.5), (10, 10.0, 5.5)]
    assert halves[0].low == pytest.approx(0.1)
    assert halves[1].high == 1.0
    edged = amax_by_sigma(layer, bins=[0.0, 0.25, 0.25, 1.0], branch=0)
    assert [(b.calls, b.amax) for b in edged] == [(2, 20.0), (8, 16.0)]
    assert sum(b.calls for b in amax_by_sigma(layer)) == 20
    assert len(amax_by_sigma(layer)) == 10
    assert amax_by_branch(layer) == {"cond": 20.0, "uncond": 19.0}
    blank = replace(layer, sigma=np.full(20, np.nan, np.float32))
    assert amax_by_sigma(blank) == ()


def test_summary_is_json(sample_statistics) -> None:
    summary = json.loads(json.dumps(sample_statistics(calls=3).summary()))
    assert summary["distinct_inputs"] == 4
    assert summary["model_calls"] == 3
    assert summary["layers"]["q"]["calls"] == 3
    assert summary["runs"][0]["prompts"] == ["prompt 0"]


def test_wrong_model_is_refused_by_name(sample_statistics, fingerprint) -> None:
    statistics = sample_statistics()
    statistics.require_model(fingerprint)
    other = replace(fingerprint, shapes={"q": (16, 16), "o": (16, 32)})
    with pytest.raises(CalibrationError, match=r"o is \(16, 16\) here and \(16, 32\) there"):
        statistics.require_model(other)
