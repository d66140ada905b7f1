"""Errors per layer on captured inputs, compared with float64 by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CalibrationStatistics, parse_policy
from nvfp4_foundry.quant.conversion.convert import quantize_to_memory
from nvfp4_foundry.quant.errors import CalibrationError, FormatError, RecipeError
from nvfp4_foundry.quant.planning import Recipe, make_plan, take_inventory
from nvfp4_foundry.quant.sensitivity.artefact import CandidateErrors
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sources import StateDictSource, open_source
from safetensors.torch import save_file

from tests.helpers import quantized_files as qf
from tests.helpers.conversions import Toy

FORMATS = ("nvfp4", "nvfp4_w4a16", "float8_e4m3fn")


@pytest.fixture
def source(toy_model: torch.nn.Module) -> StateDictSource:
    return StateDictSource(toy_model.state_dict())


@pytest.fixture
def statistics(toy_model: torch.nn.Module, source: StateDictSource) -> CalibrationStatistics:
    """Return a calibration of all layers but the first; the largest row of each call is kept."""
    collector = ActivationCollector()
    names = [n for n, m in toy_model.named_modules() if isinstance(m, torch.nn.Linear)]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad(), collector.observe(toy_model, set(names) - {"embed"}):
        for _ in range(4):
            collector.begin_call(0.5, [0])
            toy_model(torch.randn(2, 8, 32, generator=generator))
    return collector.snapshot(source.fingerprint())


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("policy", ["amax", "dynamic"])
def test_errors_are_those_of_float64(
    source: StateDictSource,
    statistics: CalibrationStatistics,
    nvfp4_reference: ModuleType,
    policy: str,
) -> None:
    found = measure_sensitivity(
        source, statistics, rounding="max", input_scale=parse_policy(policy, 2.0)
    )
    assert found.rounding == "max"
    for name in ("blocks.0.q", "blocks.2.ffn.2"):
        weight, layer = source.load(f"{name}.weight"), statistics.layers[name]
        rows = layer.rows[:64].float()
        amax = 2.0 * layer.amax if policy == "amax" else float(rows.abs().max())
        quantized = nvfp4_reference.weight_through_nvfp4(weight)
        inputs = nvfp4_reference.through_nvfp4(rows, amax / 2688)
        exact = rows.double() @ weight.double().T
        errors = found.candidates(name)
        assert errors["nvfp4"].weight == pytest.approx(relative(quantized, weight), rel=1e-4)
        w4a16 = relative(rows.double() @ quantized.T, exact)
        assert errors["nvfp4"].w4a16 == pytest.approx(w4a16, rel=1e-4)
        assert errors["nvfp4"].w4a4 == pytest.approx(
            relative(inputs @ quantized.T, exact), rel=1e-3
        )
        assert errors["nvfp4_w4a16"].w4a4 == errors["nvfp4"].w4a16
        assert errors["nvfp4_w4a16"].weight == errors["nvfp4"].weight
        assert 0 < errors["float8_e4m3fn"].w4a4 < errors["nvfp4"].w4a4 / 2


def test_errors_are_those_of_a_conversion(
    source: StateDictSource, statistics: CalibrationStatistics
) -> None:
    found = measure_sensitivity(source, statistics)
    plan = make_plan(Recipe(name="all", default="nvfp4"), take_inventory(source))
    report = quantize_to_memory(source, plan, statistics=statistics).report
    compared = 0
    for layer in report.layers:
        if layer.format == "nvfp4" and layer.name != "embed":
            errors = found.candidates(layer.name)["nvfp4"]
            wanted = (layer.weight_error, layer.output_error_w4a16, layer.output_error_w4a4)
            assert (errors.weight, errors.w4a16, errors.w4a4) == wanted
            compared += 1
    assert compared == 18


def test_which_layers_and_formats(
    source: StateDictSource, statistics: CalibrationStatistics
) -> None:
    found = measure_sensitivity(source, statistics)
    assert len(found.layers) == 20 and "norm" not in found.layers
    assert tuple(found.candidates("blocks.1.o")) == FORMATS
    assert tuple(found.candidates("head")) == ("float8_e4m3fn",)  # 20 outputs
    assert found.layers["head"].shape == (20, 32)
    assert found.layers["blocks.1.k"].input_id == found.layers["blocks.1.v"].input_id
    assert found.layers["blocks.1.o"].input_id == "blocks.1.o"
    found.require_model(source.fingerprint())

    only = measure_sensitivity(source, statistics, ["nvfp4"], layers=["blocks.1.o", "embed"])
    assert list(only.layers) == ["embed", "blocks.1.o"]
    assert only.formats == ("nvfp4",)
    assert "head" not in measure_sensitivity(source, statistics, ["nvfp4"]).layers


def test_layers_without_rows_or_with_nan_are_unknown(
    toy_model: torch.nn.Module, statistics: CalibrationStatistics
) -> None:
    state = dict(toy_model.state_dict())
    state["blocks.0.o.weight"] = state["blocks.0.o.weight"].clone()
    state["blocks.0.o.weight"][3, 3] = torch.nan
    layers = dict(statistics.layers)
    layers["blocks.1.o"] = replace(layers["blocks.1.o"], rows=torch.full((4, 32), torch.nan))
    layers["blocks.2.o"] = replace(layers["blocks.2.o"], rows=torch.zeros(0, 32))
    found = measure_sensitivity(StateDictSource(state), replace(statistics, layers=layers))

    assert found.candidates("blocks.0.o") == dict.fromkeys(FORMATS, CandidateErrors())
    assert found.layers["embed"].input_id is None
    for name in ("embed", "blocks.1.o", "blocks.2.o"):
        for errors in found.candidates(name).values():
            assert errors.weight is not None and errors.weight > 0
            assert (errors.w4a16, errors.w4a4) == (None, None)
    unknown = {"embed", "blocks.0.o", "blocks.1.o", "blocks.2.o"}
    assert set(found.unknown("nvfp4")) == unknown


def test_one_weight_in_memory_at_a_time(
    source: StateDictSource, statistics: CalibrationStatistics
) -> None:
    """Each weight is loaded once, and progress comes between any two."""
    events: list[str] = []
    load = source.load

    def watched(name: str) -> torch.Tensor:
        if name.endswith(".weight") and len(source.info(name).shape) == 2:
            events.append("load " + name.removesuffix(".weight"))
        return load(name)

    source.load = watched  # type: ignore[method-assign]
    measure_sensitivity(
        source,
        statistics,
        on_progress=lambda done, total, text: events.append("done " + text.partition(": ")[2]),
    )
    names = [event.removeprefix("load ") for event in events[::2]]
    assert events == [event for name in names for event in (f"load {name}", f"done {name}")]
    assert len(names) == len(set(names)) == 20


def test_progress_ends_at_the_total_and_may_stop(
    source: StateDictSource, statistics: CalibrationStatistics
) -> None:
    seen: list[tuple[int, int]] = []
    measure_sensitivity(source, statistics, on_progress=lambda *a: seen.append(a[:2]))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] > 0

    def stop(*event: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(source, statistics, on_progress=stop)


def test_what_cannot_be_measured_is_refused(
    source: StateDictSource, statistics: CalibrationStatistics
) -> None:
    with pytest.raises(CalibrationError, match=r"named blocks\.9\.q, norm"):
        measure_sensitivity(source, statistics, layers=["blocks.9.q", "norm", "head"])
    with pytest.raises(CalibrationError, match="named head"):
        measure_sensitivity(source, statistics, ["nvfp4"], layers=["head"])
    with pytest.raises(FormatError, match=r"bf16 quantizes nothing.*nvfp4_w4a16"):
        measure_sensitivity(source, statistics, ["bf16"])
    with pytest.raises(FormatError, match="unknown format 'fp5'"):
        measure_sensitivity(source, statistics, ["fp5"])
    with pytest.raises(CalibrationError, match="can take a format"):
        measure_sensitivity(source, statistics, [])
    with pytest.raises(RecipeError, match="unknown rounding"):
        measure_sensitivity(source, statistics, rounding="best")


@pytest.fixture
def other(toy_model: torch.nn.Module) -> Iterator[StateDictSource]:
    state = {name: tensor * 1.5 for name, tensor in toy_model.state_dict().items()}
    yield StateDictSource(state)


def test_statistics_of_another_model_are_refused(
    other: StateDictSource, statistics: CalibrationStatistics
) -> None:
    with pytest.raises(CalibrationError, match="different model"):
        measure_sensitivity(other, statistics)


def test_what_is_stored_in_a_format_already_loses_nothing_in_it(
    tmp_path: Path, toy_wan: Toy
) -> None:
    """The layer is copied; rounding it again with searched scales would change it by 3%."""
    path = tmp_path / "model.safetensors"
    tensors = qf.modelopt(toy_wan(blocks=1))
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    name = "blocks.0.ffn.0"
    with open_source(path) as source:
        weight = source.load(f"{name}.weight")
        layer = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.Module()])})
        layer["blocks"][0].ffn = torch.nn.ModuleList([torch.nn.Linear(weight.shape[1], 4)])
        collector = ActivationCollector()
        with torch.no_grad(), collector.observe(layer, {name}):
            collector.begin_call(0.5, [0])
            layer["blocks"][0].ffn[0](torch.randn(16, weight.shape[1]))
        statistics = collector.snapshot(source.fingerprint())
        found = measure_sensitivity(source, statistics, layers=[name]).candidates(name)
    for fmt in ("nvfp4", "nvfp4_w4a16"):
        assert found[fmt].weight == found[fmt].w4a16 == 0
    assert found["nvfp4"].w4a4 > 0.01  # of its activations
    assert found["float8_e4m3fn"].weight > 0.01
