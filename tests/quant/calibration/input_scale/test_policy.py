"""The magnitude that static scales represent, and layers that get none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nvfp4_foundry.quant.calibration import (
    InputScalePolicy,
    decide_scales,
    parse_policy,
    represented_amax,
)
from nvfp4_foundry.quant.errors import CalibrationError


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("amax", InputScalePolicy("amax", 4.0)),
        (" AMAX * 2 ", InputScalePolicy("amax", 2.0)),
        ("amax x1.5", InputScalePolicy("amax", 1.5)),
        ("dynamic", InputScalePolicy("dynamic")),
        ("fixed=0.01", InputScalePolicy("fixed", input_scale=0.01)),
        ("fixed = 1e-3", InputScalePolicy("fixed", input_scale=0.001)),
        ("p99.9", InputScalePolicy("percentile", 4.0, percent=99.9)),
        ("p50*8", InputScalePolicy("percentile", 8.0, percent=50.0)),
    ],
)
def test_policies_are_read_and_written(text, policy) -> None:
    assert parse_policy(text) == policy
    assert parse_policy(str(policy)) == policy


def test_headroom_argument_yields_to_the_text() -> None:
    assert parse_policy("amax", headroom=2).headroom == 2
    assert parse_policy("p99.9", headroom=2).headroom == 2
    assert parse_policy("amax*8", headroom=2).headroom == 8


@pytest.mark.parametrize(
    "text",
    ["", "max", "amax*0.5", "amax*0", "amax*", "p0", "p101", "p", "fixed", "fixed=0", "fixed=-1",
     "fixed=nan", "p1.2.3", "amax*1e999", "fixed=1e999", "dynamic*2"],
)  # fmt: skip
def test_nonsense_is_refused(text) -> None:
    with pytest.raises(CalibrationError):
        parse_policy(text)


def test_unfit_values_are_refused() -> None:
    with pytest.raises(CalibrationError, match="needs a value"):
        InputScalePolicy("fixed")
    with pytest.raises(CalibrationError, match="needs a value"):
        InputScalePolicy("amax", input_scale=1.0)
    with pytest.raises(CalibrationError, match="unknown"):
        InputScalePolicy("median")  # type: ignore[arg-type]


def test_amax_times_headroom_over_the_format(sample_statistics) -> None:
    layer = sample_statistics().layers["q"]
    decision = represented_amax(parse_policy("amax*4"), layer)
    assert decision.amax == 4 * float(layer.call_amax.max())
    assert decision.scale_for(2688.0) == decision.amax / 2688
    assert decision.scale_for(448.0) == decision.amax / 448
    assert decision.is_static


def test_percentile_is_over_calls(sample_statistics) -> None:
    layer = sample_statistics(calls=40).layers["q"]
    decision = represented_amax(parse_policy("p90*1.5"), layer)
    assert decision.amax == pytest.approx(1.5 * np.percentile(layer.call_amax, 90))
    assert "p90" in decision.reason


def test_fixed_is_the_scale_itself() -> None:
    decision = represented_amax(parse_policy("fixed=0.01"), None)
    assert decision.amax is None
    assert decision.scale_for(2688.0) == decision.scale_for(448.0) == 0.01


def test_doubtful_layers_stay_dynamic(sample_statistics) -> None:
    layer = sample_statistics().layers["q"]
    amax = parse_policy("amax")
    zero = replace(layer, call_amax=np.zeros_like(layer.call_amax))
    broken = replace(layer, call_amax=np.where(np.arange(6) == 2, np.nan, layer.call_amax))
    for decision, word in (
        (represented_amax(parse_policy("dynamic"), layer), "as requested"),
        (represented_amax(amax, None), "never observed"),
        (represented_amax(amax, layer, reference_calls=7), "only 3 of 7"),
        (represented_amax(amax, zero), "zero"),
        (represented_amax(amax, broken), "NaN"),
        (represented_amax(parse_policy("p99"), broken), "NaN"),
    ):
        assert word in decision.reason
        assert not decision.is_static
        assert decision.scale_for(2688.0) is None


def test_decisions_for_a_model(sample_statistics) -> None:
    statistics = sample_statistics()
    decisions = decide_scales(parse_policy("amax"), statistics, ["q", "ffn.2", "absent"])
    assert [n for n, d in decisions.items() if d.is_static] == ["q", "ffn.2"]
    assert not decide_scales(parse_policy("amax"), None, ["q"])["q"].is_static
