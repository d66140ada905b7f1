"""Exported scales are correct for the readers of the other converters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nvfp4_foundry.quant.calibration import decide_scales, parse_policy
from nvfp4_foundry.quant.calibration.input_scale.export import export_scales, write_scales
from nvfp4_foundry.quant.calibration.input_scale.read import read_scales
from nvfp4_foundry.quant.errors import CalibrationError

POLICY = parse_policy("amax*4")


def largest(statistics, name: str) -> float:
    return float(statistics.layers[name].call_amax.max())


def test_layers_for_convert_to_quant(sample_statistics, tmp_path: Path) -> None:
    """Its reader: ``json.load``, then ``scales[layer]`` for each layer it quantizes."""
    statistics = sample_statistics()
    path = tmp_path / "out.json"
    write_scales(export_scales(statistics, POLICY, prefix="model."), path)
    scales = json.loads(path.read_text())
    origin = scales.pop("_nvfp4_foundry")
    assert origin["format"] == "nvfp4"
    assert scales.keys() == {f"model.{name}" for name in statistics.layers}
    for name in statistics.layers:
        assert scales[f"model.{name}"] == 4 * largest(statistics, name) / 2688
    assert not list(tmp_path.glob(".*"))


def test_formats_and_tensor_names(sample_statistics) -> None:
    statistics = sample_statistics()
    export = export_scales(statistics, POLICY, flavour="tensors", format_name="float8_e4m3fn")
    assert export.data["q.input_scale"] == 4 * largest(statistics, "q") / 448
    assert export.layers == len(statistics.layers)


def test_a_summary_for_convert_nvfp4(sample_statistics) -> None:
    """Its reader takes ``scale_pNN`` of each entry of ``layers``, and multiplies it itself."""
    statistics = sample_statistics(calls=20)
    data = export_scales(statistics, POLICY, flavour="summary").data
    row = next(row for row in data["layers"] if row["layer"] == "ffn.2")
    amax = np.sort(statistics.layers["ffn.2"].call_amax.astype(np.float64))
    assert data["format"] == "nvfp4" and row["count"] == len(amax) == 40
    position = 0.999 * (len(amax) - 1)  # linear interpolation, as the analyzer's own
    below = amax[int(position)]
    expected = below + (position - int(position)) * (amax[int(position) + 1] - below)
    assert row["scale_p99_9"] == pytest.approx(expected / 2688)
    assert row["amax_max"] == amax[-1]
    assert row["scale_mean"] == pytest.approx(amax.mean() / 2688)
    assert {"scale_min", "scale_std", "scale_p50", "amax_p99", "amax_std"} <= set(row)


@pytest.mark.parametrize("flavour", ["layers", "tensors", "summary"])
def test_what_is_exported_comes_back(sample_statistics, tmp_path: Path, flavour: str) -> None:
    statistics = sample_statistics()
    names = list(statistics.layers)
    path = tmp_path / "out.json"
    write_scales(export_scales(statistics, POLICY, flavour=flavour), path)
    assert read_scales(path).observed == (flavour == "summary")
    direct = decide_scales(POLICY, statistics, names)
    read_back = decide_scales(parse_policy(f"file={path}"), None, names)
    for name in names:
        for divisor in (2688.0, 448.0):
            again = read_back[name].scale_for(divisor)
            assert again == pytest.approx(direct[name].scale_for(divisor), rel=1e-12)


def test_doubtful_layers_are_left_out_and_named(sample_statistics) -> None:
    statistics = sample_statistics()
    broken = replace(
        statistics.layers["o"], call_amax=np.full_like(statistics.layers["o"].call_amax, np.nan)
    )
    partly = replace(statistics, layers={**statistics.layers, "o": broken})
    export = export_scales(partly, POLICY)
    assert "o" not in export.data and "NaN" in export.left_out["o"]


def test_nothing_to_export_is_an_error(sample_statistics) -> None:
    with pytest.raises(CalibrationError, match="as requested"):
        export_scales(sample_statistics(), parse_policy("dynamic"))
    with pytest.raises(CalibrationError, match="bf16 layers take no input_scale"):
        export_scales(sample_statistics(), POLICY, format_name="bf16")
    with pytest.raises(CalibrationError, match="known: layers, tensors, summary"):
        export_scales(sample_statistics(), POLICY, flavour="csv")
