"""Conversions with a calibration: input scales, output errors, and refused calibrations."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import comfy_kitchen
import pytest
import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CalibrationStatistics
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert, quantize_to_memory
from nvfp4_foundry.quant.errors import CalibrationError
from nvfp4_foundry.quant.sources import StateDictSource
from nvfp4_foundry.quant.sources.quantized import decoded
from safetensors.torch import load_file

from tests.helpers import quantized_files as qf
from tests.helpers.conversions import MARKERS, Toy, assert_same, metadata_of, plan_of


class Blocks(torch.nn.Module):
    """The Linear layers of the toy's blocks by name, all with the same input."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], leave_out: str = ""):
        super().__init__()
        self.names = []
        for name, tensor in tensors.items():
            layer = name.removesuffix(".weight")
            if name.endswith(".weight") and tensor.dim() == 2 and layer != leave_out:
                module: torch.nn.Module = self
                *parents, leaf = layer.split(".")
                for parent in parents:
                    if parent not in dict(module.named_children()):
                        module.add_module(parent, torch.nn.Module())
                    module = module.get_submodule(parent)
                linear = torch.nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
                linear.weight.data = tensor.float()
                module.add_module(leaf, linear)
                self.names.append(layer)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> None:
        for name in self.names:
            self.get_submodule(name)(inputs[name])


@pytest.fixture
def calibrated(
    toy_wan: Toy,
) -> tuple[dict[str, torch.Tensor], CalibrationStatistics, dict[str, float]]:
    """Return a toy, a calibration of three calls without one layer, and each layer's amax."""
    tensors = toy_wan()
    model = Blocks(tensors, leave_out="blocks.0.cross_attn.q")
    generator = torch.Generator().manual_seed(1)
    collector, amax = ActivationCollector(), dict.fromkeys(model.names, 0.0)
    collector.new_run("a prompt")
    with collector.observe(model), torch.no_grad():
        for sigma in (1.0, 0.5, 0.1):
            collector.begin_call(sigma, [0])
            inputs = {}
            for name in model.names:
                columns = tensors[f"{name}.weight"].shape[1]
                inputs[name] = torch.randn(1, 6, columns, generator=generator)
                amax[name] = max(amax[name], float(inputs[name].abs().max()))
            model(inputs)
    return tensors, collector.snapshot(StateDictSource(tensors).fingerprint()), amax


def test_static_input_scales(
    tmp_path: Path,
    calibrated: tuple[dict[str, torch.Tensor], CalibrationStatistics, dict[str, float]],
) -> None:
    tensors, statistics, amax = calibrated
    source = StateDictSource(tensors)
    plan = plan_of(source)
    report = convert(source, plan, tmp_path / "out", statistics=statistics)
    stored = load_file(tmp_path / "out")
    divisor = {"nvfp4": 2688, "float8_e4m3fn": 448}
    expected = {
        f"{la.name}.input_scale": amax[la.name] * 4 / divisor[la.format]
        for la in plan.quantized()
        if la.format in divisor and la.name != "blocks.0.cross_attn.q"
    }
    assert len(expected) == 40 - 4 - 1
    assert {name for name in stored if name.endswith("input_scale")} == set(expected)
    for name, scale in expected.items():
        assert (stored[name].dtype, stored[name].shape) == (torch.float32, ())
        assert torch.equal(stored[name], torch.tensor(scale, dtype=torch.float32)), name
    assert report.dynamic_layers == ("blocks.0.cross_attn.q",)
    assert "never observed: blocks.0.cross_attn.q" in report.warnings
    provenance = json.loads(metadata_of(tmp_path / "out")["nvfp4_foundry"])
    assert provenance["calibration"] == {
        "runs": [statistics.runs[0].id], "prompts": 1, "model_calls": 3, "layers": 45,
    }  # fmt: skip
    assert verify_checkpoint(tmp_path / "out").problems == ()
    assert_same(stored, dict(quantize_to_memory(source, plan, statistics=statistics).tensors))
    scales = {la.name: la.input_scale for la in inspect_checkpoint(tmp_path / "out").layers}
    assert scales["blocks.3.ffn.2"] == pytest.approx(amax["blocks.3.ffn.2"] * 4 / 448, rel=1e-6)
    assert scales["blocks.0.cross_attn.q"] is None


def test_the_error_is_beside_that_of_a_conversion_by_the_max_rule(
    tmp_path: Path,
    calibrated: tuple[dict[str, torch.Tensor], CalibrationStatistics, dict[str, float]],
) -> None:
    """Of all layers but the one that was not observed; the file's header tells the same."""
    tensors, statistics, _ = calibrated
    source = StateDictSource(tensors)
    plans = [plan_of(source, rounding=rounding) for rounding in ("mse", "max")]
    ours, plain = (quantize_to_memory(source, plan, statistics=statistics).report for plan in plans)
    chosen, by_max = ours.overall_error(), plain.overall_error()
    assert chosen is not None and by_max is not None
    assert chosen.of_outputs and chosen.layers == by_max.layers == 39
    assert chosen.error < chosen.max_rule
    assert chosen.max_rule == pytest.approx(by_max.error, rel=0.03)
    for la, other in zip(ours.layers, plain.layers, strict=True):
        if la.max_rule_output_error is not None:
            measured = other.output_error_w4a16
            assert la.max_rule_output_error == pytest.approx(measured, rel=0.15), la.name
    convert(source, plans[0], tmp_path / "out", statistics=statistics)
    recorded = inspect_checkpoint(tmp_path / "out").overall_error()
    assert recorded is not None and recorded.what == chosen.what
    assert recorded.error == pytest.approx(chosen.error, rel=1e-3)


def test_output_errors_are_measured_on_the_sampled_rows(
    tmp_path: Path,
    calibrated: tuple[dict[str, torch.Tensor], CalibrationStatistics, dict[str, float]],
) -> None:
    tensors, statistics, _ = calibrated
    source = StateDictSource(tensors)
    plan = plan_of(source)
    report = convert(source, plan, tmp_path / "out", statistics=statistics)
    stored = load_file(tmp_path / "out")
    for layer in report.layers:
        if layer.format not in MARKERS or layer.name == "blocks.0.cross_attn.q":
            assert layer.output_error_w4a16 is None
            continue
        assert layer.output_error_w4a16 is not None and layer.output_error_w4a4 is not None
        assert (layer.calls, layer.tokens) == (3, 18)
        if layer.format == "nvfp4":
            rows = statistics.layers[layer.name].rows.float()
            weight, name = tensors[f"{layer.name}.weight"].float(), layer.name
            decoded = comfy_kitchen.dequantize_nvfp4(
                stored[f"{name}.weight"], stored[f"{name}.weight_scale_2"],
                stored[f"{name}.weight_scale"], torch.float32,
            )  # fmt: skip
            exact = rows @ weight.T
            error = float((rows @ decoded.T - exact).norm() / exact.norm())
            assert layer.output_error_w4a16 == pytest.approx(error, rel=1e-4)
            assert layer.output_error_w4a4 > layer.output_error_w4a16
        if layer.format == "nvfp4_w4a16":
            assert layer.output_error_w4a4 == layer.output_error_w4a16
    unmeasured = quantize_to_memory(source, plan, statistics=statistics, measure_outputs=False)
    assert all(la.output_error_w4a4 is None for la in unmeasured.report.layers)
    assert_same(stored, dict(unmeasured.tensors))


@pytest.mark.parametrize(("policy", "count"), [("dynamic", 0), ("fixed=0.25", 36), ("amax*1", 35)])
def test_input_scale_policies(
    calibrated: tuple[dict[str, torch.Tensor], CalibrationStatistics, dict[str, float]],
    policy: str,
    count: int,
) -> None:
    tensors, statistics, amax = calibrated
    source = StateDictSource(tensors)
    plan = plan_of(source, input_scale=policy)
    stored = quantize_to_memory(source, plan, statistics=statistics).tensors
    scales = {n: float(t) for n, t in stored.items() if n.endswith(".input_scale")}
    assert len(scales) == count
    if policy == "fixed=0.25":
        assert set(scales.values()) == {0.25}
    if policy == "amax*1":
        name = "blocks.2.self_attn.k"
        assert scales[f"{name}.input_scale"] == pytest.approx(amax[name] / 2688, rel=1e-6)


def test_statistics_of_another_model_are_refused(
    tmp_path: Path,
    toy_wan: Toy,
    calibrated: tuple[dict[str, torch.Tensor], CalibrationStatistics, dict[str, float]],
) -> None:
    _, statistics, _ = calibrated
    for other, difference in (
        (toy_wan(seed=1), "same architecture, other weights"),
        (toy_wan(blocks=5), "0 layers are missing and 10 are new"),
    ):
        source = StateDictSource(other)
        with pytest.raises(CalibrationError, match="from a different model") as caught:
            convert(source, plan_of(source), tmp_path / "out", statistics=statistics)
        assert difference in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_statistics_of_the_bf16_model_fit_its_fp32_original(
    calibrated: tuple[dict[str, torch.Tensor], CalibrationStatistics, dict[str, float]],
) -> None:
    tensors, statistics, _ = calibrated
    source = StateDictSource({name: tensor.float() for name, tensor in tensors.items()})
    model = quantize_to_memory(source, plan_of(source), statistics=statistics)
    assert "blocks.1.ffn.0.input_scale" in model.tensors


def test_statistics_of_the_base_are_taken_for_a_merge_with_a_warning(
    calibrated: tuple[dict[str, torch.Tensor], CalibrationStatistics, dict[str, float]],
) -> None:
    base, statistics, _ = calibrated
    generator = torch.Generator().manual_seed(0)
    merged = {
        name: tensor * (1 + 0.03 * torch.randn(tensor.shape, generator=generator))
        if tensor.dim() == 2
        else tensor
        for name, tensor in base.items()
    }
    for tensors, warns in ((base, False), (merged, True)):
        source = StateDictSource(tensors)
        report = quantize_to_memory(source, plan_of(source), statistics=statistics).report
        assert any("made on other weights" in w for w in report.warnings) == warns


@pytest.mark.parametrize("kind", ["scaled fp8", "ComfyUI nvfp4"])
def test_statistics_of_the_model_serve_its_quantized_source(
    calibrated: tuple[dict[str, torch.Tensor], CalibrationStatistics, dict[str, float]], kind: str
) -> None:
    """The calibration's scales replace the file's own, and the warning names the file as cause."""
    base, statistics, amax = calibrated
    source = decoded(StateDictSource(qf.MAKERS[kind](base)))
    lines = f"blocks.* = {'nvfp4' if 'nvfp4' in kind else 'float8_e4m3fn'}"
    model = quantize_to_memory(source, plan_of(source, lines), statistics=statistics)
    (warning,) = [w for w in model.report.warnings if "made on other weights" in w]
    assert "the model before it was quantized" in warning and "LoRA" not in warning
    layers = {layer.name: layer for layer in model.report.layers}
    layer = layers["blocks.1.ffn.0"]
    assert (layer.rounding, layer.weight_error, layer.output_error_w4a16) == ("source", 0, 0)
    assert layer.output_error_w4a4 and "source" not in layer.input_scale_reason
    divisor = 2688 if "nvfp4" in kind else 448
    wanted = amax["blocks.1.ffn.0"] / divisor
    assert layer.input_scale == pytest.approx(wanted * plan_of(source, lines).recipe.headroom)
