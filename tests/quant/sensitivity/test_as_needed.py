"""A probe that ends before it has run all units: what it measures, and what it estimates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.calibration import CalibrationStatistics
from nvfp4_foundry.quant.errors import CalibrationError
from nvfp4_foundry.quant.planning import Plan, Recipe, Rule, make_plan, take_inventory
from nvfp4_foundry.quant.reports.sensitivity import describe_sensitivity
from nvfp4_foundry.quant.sensitivity.artefact import (
    Sensitivity,
    load_sensitivity,
    save_sensitivity,
)
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probe import SAMPLED, LatentProbe
from nvfp4_foundry.quant.sensitivity.probe_order import STOP_BELOW
from nvfp4_foundry.quant.sensitivity.probe_record import ProbeRecord
from nvfp4_foundry.quant.sources import StateDictSource
from torch import nn

from tests.helpers.probing import FORMATS, hooks, random_input

#: Runs of the toy model in both formats.
ALL = 27


def plan_of(source: StateDictSource, *rules: Rule, default: str = "nvfp4") -> Plan:
    return make_plan(Recipe(name="toy", rules=rules, default=default), take_inventory(source))


def probed(probe: LatentProbe, model: nn.Module, **options: Any) -> Sensitivity:
    x = random_input()
    with torch.no_grad():
        probe.probe(model, lambda: model(x), model(x), SAMPLED, **options)
    return probe.result()


def shifts(found: Sensitivity, *, estimated: bool) -> dict[tuple[str, str], float]:
    return {
        (name, fmt): errors.latent
        for name, layer in found.layers.items()
        for fmt, errors in layer.candidates.items()
        if errors.latent is not None and errors.is_estimated == estimated
    }


def test_measured_shifts_are_those_of_a_whole_probe_and_the_rest_is_estimated(
    toy_model: nn.Module, new: Callable[..., LatentProbe]
) -> None:
    whole = shifts(probed(new(), toy_model), estimated=False)
    probe = new(stop_below=STOP_BELOW)
    found = probed(probe, toy_model)
    measured, estimated = shifts(found, estimated=False), shifts(found, estimated=True)
    assert 3 <= probe.measured[0] < ALL == probe.runs and hooks(toy_model) == 0
    assert measured == {key: whole[key] for key in measured}
    assert measured.keys() | estimated.keys() == whole.keys()
    # within a factor of 3, although the toy model has three blocks of random weights
    ratios = torch.tensor([estimated[key] / whole[key] for key in estimated]).log()
    assert float(ratios.square().mean().sqrt()) < 1.1
    assert f"{len({name for name, fmt in estimated if fmt == 'nvfp4'})} of 19" in (
        describe_sensitivity(found)
    )


def test_a_threshold_of_zero_measures_all(
    toy_model: nn.Module, new: Callable[..., LatentProbe]
) -> None:
    probe = new(stop_below=0.0)
    assert probed(probe, toy_model) == probed(new(), toy_model)
    assert probe.measured == (ALL,)


def test_a_probe_can_be_stopped_and_goes_on_later(
    toy_model: nn.Module, new: Callable[..., LatentProbe], tmp_path: Path
) -> None:
    """What is known at the end of the time counts, and so does what an earlier probe knew."""
    uninterrupted = probed(new(stop_below=STOP_BELOW), toy_model)
    path = tmp_path / "record.json"
    for enough in (1, 4):
        probe = new(stop_below=STOP_BELOW)
        answers = iter([False] * (enough - 1))
        found = probed(
            probe,
            toy_model,
            record=ProbeRecord(path, "key"),
            is_enough=lambda answers=answers: next(answers, True),
        )
        assert len(shifts(found, estimated=True)) > 19
    assert probe.measured == (4,)
    probe = new(stop_below=STOP_BELOW)
    assert probed(probe, toy_model, record=ProbeRecord(path, "key")) == uninterrupted


def test_a_layer_that_did_not_run_stays_unknown_though_it_was_not_probed(
    toy_model: nn.Module, new: Callable[..., LatentProbe]
) -> None:
    toy_model.blocks[1].o = nn.Identity()
    probe = new(stop_below=STOP_BELOW)
    found = probed(probe, toy_model, is_enough=lambda: True)
    assert probe.measured == (1,) and probe.unreached == ("blocks.1.o",)
    assert "blocks.1.o" in found.unknown("nvfp4")


def test_a_layer_that_did_not_run_is_not_probed_again(
    toy_model: nn.Module, new: Callable[..., LatentProbe]
) -> None:
    """The first run tells which layers run."""
    toy_model.blocks[1].o = nn.Identity()
    probe = new(stop_below=0.0)
    found = probed(probe, toy_model)
    assert ALL - 2 <= probe.measured[0] <= ALL - 1
    assert "blocks.1.o" in found.unknown("nvfp4") and not shifts(found, estimated=True)


def test_the_latest_result_is_the_last_also_if_it_replaces_an_earlier_one(
    toy_model: nn.Module, new: Callable[..., LatentProbe], tmp_path: Path
) -> None:
    probe = new(stop_below=0.0)
    for key, stops in (("a", True), ("b", False), ("a", True)):
        record = ProbeRecord(tmp_path / f"{key}{len(probe.measured)}.json", key)
        probed(probe, toy_model, record=record, is_enough=lambda stops=stops: stops)
    assert probe.measured == (ALL, 1)


def test_without_output_errors_every_unit_is_measured(
    toy_model: nn.Module,
    source: StateDictSource,
    statistics: CalibrationStatistics,
) -> None:
    measured = measure_sensitivity(source, statistics, FORMATS, rounding="max")
    blind = {
        name: replace(
            layer,
            candidates={f: replace(each, w4a4=None) for f, each in layer.candidates.items()},
        )
        for name, layer in measured.layers.items()
    }
    probe = LatentProbe(
        source, replace(measured, layers=blind), formats=FORMATS, stop_below=STOP_BELOW
    )
    probed(probe, toy_model)
    assert probe.measured == (ALL,) and not probe.is_selective


def test_nothing_is_estimated_from_a_shift_that_is_not_finite(
    toy_model: nn.Module, new: Callable[..., LatentProbe]
) -> None:
    x, probe = random_input(), new(stop_below=STOP_BELOW)
    with torch.no_grad():
        probe.probe(
            toy_model,
            lambda: toy_model(x) * torch.nan,
            toy_model(x),
            SAMPLED,
            is_enough=lambda: True,
        )
    found = probe.result()
    assert not shifts(found, estimated=True) and not shifts(found, estimated=False)


def test_a_plan_leaves_out_what_it_does_not_quantize(
    toy_model: nn.Module, source: StateDictSource, new: Callable[..., LatentProbe]
) -> None:
    plan = plan_of(
        source, Rule(pattern="blocks.0.*", format="bf16"), Rule(pattern="embed", format="bf16")
    )
    probe = new(plan=plan, stop_below=0.0)
    found = probed(probe, toy_model)
    probed_layers = {name for name, _ in shifts(found, estimated=False)}
    assert probed_layers == {layer.name for layer in plan.quantized()}
    only_head = plan_of(source, Rule(pattern="head", format="float8_e4m3fn"), default="keep")
    assert new(plan=only_head).runs == 1  # NVFP4 cannot take its shape
    with pytest.raises(CalibrationError, match="the plan quantizes no layer"):
        new(plan=only_head, formats=("nvfp4",))


def test_estimates_are_saved_as_such(
    toy_model: nn.Module, new: Callable[..., LatentProbe], tmp_path: Path
) -> None:
    found = probed(new(stop_below=STOP_BELOW), toy_model)
    save_sensitivity(found, tmp_path / "s.json")
    assert load_sensitivity(tmp_path / "s.json") == found
    data = json.loads((tmp_path / "s.json").read_text())
    for layer in data["layers"]:
        for errors in layer["candidates"].values():
            del errors["is_estimated"]
    (tmp_path / "older.json").write_text(json.dumps(data))
    loaded = load_sensitivity(tmp_path / "older.json")
    assert not shifts(loaded, estimated=True) and loaded.layers.keys() == found.layers.keys()
