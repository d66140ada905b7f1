"""A checkpoint with factors per channel, through every command that reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    decide_scales,
    parse_policy,
)
from nvfp4_foundry.quant.calibration.input_scale.read import read_scales
from nvfp4_foundry.quant.checkpoint import (
    compare_checkpoints,
    inspect_checkpoint,
    rescale_checkpoint,
    verify_checkpoint,
)
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.conversion.layer import input_scale_of
from nvfp4_foundry.quant.conversion.observed_input import ObservedInputs
from nvfp4_foundry.quant.conversion.report import ConversionReport
from nvfp4_foundry.quant.derive import recipe_from_checkpoint
from nvfp4_foundry.quant.errors import PlanError
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.nvfp4 import PRE_QUANT_SCALE
from nvfp4_foundry.quant.hardware.emulation import read_input_roundings
from nvfp4_foundry.quant.planning import Recipe, make_plan, take_inventory
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probed_layers import LayerEncoder
from nvfp4_foundry.quant.sources import SafetensorsFile, open_source, open_tensors
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import metadata_of, plan_of
from tests.helpers.observed_inputs import Toy, loud

RULES = "blocks.*.a = nvfp4_smooth\nblocks.*.b = nvfp4"
LAYER = "blocks.0.a"


@dataclass(frozen=True)
class Smooth:
    """A toy, its calibration and the checkpoint."""

    source: Path
    statistics: CalibrationStatistics
    path: Path
    report: ConversionReport


@pytest.fixture(scope="module")
def smooth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smooth]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("smooth")
    model, source = Toy(), folder / "toy.safetensors"
    save_file({n: t.to(torch.bfloat16) for n, t in model.state_dict().items()}, source)
    collector = ActivationCollector(CollectorSettings(200, moments_budget_bytes=2**28))
    for run in range(2):
        collector.new_run(f"prompt {run}", run_id=f"{run:032x}")
        with torch.no_grad(), collector.observe(model):
            for call in range(4):
                model(loud()(10 * run + call))
    with SafetensorsFile(source) as file:
        statistics = collector.snapshot(file.fingerprint())
        plan = plan_of(file, RULES, rounding="gptq")
        report = convert(file, plan, folder / "smooth.safetensors", statistics=statistics)
    yield Smooth(source, statistics, folder / "smooth.safetensors", report)


def test_the_report_and_the_header_say_what_it_is_and_needs(smooth: Smooth) -> None:
    layers = {la.name: la for la in smooth.report.layers}
    assert layers[LAYER].format == "nvfp4_smooth"
    assert "gptq with factors per channel: error" in layers[LAYER].remarks
    assert smooth.report.needs_comfyui == "0.33"
    assert any("Bypass" in advice and "factors" in advice for advice in smooth.report.advice)
    summary = inspect_checkpoint(smooth.path)
    assert summary.provenance["needs_comfyui"] == summary.needs_comfyui == "0.33"
    assert summary.counts() == {"nvfp4_smooth": 2, "nvfp4": 2}
    found = {la.name: la for la in summary.layers}[LAYER]
    assert found.input_scale == pytest.approx(layers[LAYER].input_scale, rel=1e-6)
    assert "needs ComfyUI 0.33 or newer: 2 layers are nvfp4_smooth" in summary.notes


def test_the_file_holds_what_comfyui_reads(smooth: Smooth) -> None:
    tensors = load_file(smooth.path)
    factors = tensors[f"{LAYER}.{PRE_QUANT_SCALE}"]
    assert factors.dtype == torch.float32 and factors.shape == (64,) and float(factors.min()) > 0
    marker = json.loads(bytes(tensors[f"{LAYER}.comfy_quant"].tolist()))
    assert marker == {"format": "nvfp4"}
    assert f"blocks.0.b.{PRE_QUANT_SCALE}" not in tensors


def test_it_verifies_against_its_source_and_damage_is_found(smooth: Smooth, tmp_path: Path) -> None:
    verified = verify_checkpoint(smooth.path, smooth.source)
    assert verified.problems == ()
    assert verified.notes == ("nvfp4_smooth needs ComfyUI 0.33 or newer",)
    tensors = load_file(smooth.path)
    tensors[f"{LAYER}.{PRE_QUANT_SCALE}"][0] *= 2
    save_file(tensors, tmp_path / "damaged.safetensors", metadata_of(smooth.path))
    problems = verify_checkpoint(tmp_path / "damaged.safetensors", smooth.source).problems
    assert any(problem.startswith(LAYER) for problem in problems)
    tensors[f"{LAYER}.{PRE_QUANT_SCALE}"][:] *= -1
    save_file(tensors, tmp_path / "damaged.safetensors", metadata_of(smooth.path))
    problems = verify_checkpoint(tmp_path / "damaged.safetensors", smooth.source).problems
    assert any(f"{LAYER}: {PRE_QUANT_SCALE} is negative" in problem for problem in problems)


def test_it_decodes_to_nearly_the_source_as_a_source(smooth: Smooth, tmp_path: Path) -> None:
    with open_source(smooth.path) as again, open_source(smooth.source) as source:
        exact, found = source.load(f"{LAYER}.weight").float(), again.load(f"{LAYER}.weight")
        reported = {la.name: la.weight_error for la in smooth.report.layers}[LAYER]
        assert float((found - exact).norm() / exact.norm()) == pytest.approx(reported, rel=1e-3)
        target = tmp_path / "again.safetensors"
        report = convert(again, plan_of(again, "blocks.* = nvfp4"), target)
    layer = {la.name: la for la in report.layers}[LAYER]
    # the stored scale is for the input times the factors
    assert layer.rounding == "max" and layer.input_scale is None
    assert not any(name.endswith(PRE_QUANT_SCALE) for name in load_file(target))
    compared = {la.name: la for la in compare_checkpoints(smooth.source, smooth.path).layers}
    assert compared[LAYER].relative_error == pytest.approx(reported, rel=1e-3)
    assert compared[LAYER].format_b == "nvfp4_smooth"


def test_its_recipe_names_the_format_and_the_version(smooth: Smooth) -> None:
    with open_source(smooth.path) as checkpoint:
        recipe = recipe_from_checkpoint(checkpoint, "smooth").recipe
    assert set(recipe.formats()) == {"nvfp4_smooth", "nvfp4", "keep"} and recipe.comfyui == "0.33"


def test_native_products_are_emulated_with_the_factors(smooth: Smooth) -> None:
    with open_tensors(smooth.path) as checkpoint:
        rounding = read_input_roundings(checkpoint)[LAYER]
    tensors = load_file(smooth.path)
    factors, x = tensors[f"{LAYER}.{PRE_QUANT_SCALE}"], loud()(77)
    scale = float(tensors[f"{LAYER}.input_scale"])
    wanted = get_format("nvfp4").emulate_activations(x * factors, scale)
    assert torch.allclose(rounding.apply(x) * factors, wanted, rtol=1e-6)


def test_other_input_scales_are_for_the_multiplied_input_too(
    smooth: Smooth, tmp_path: Path
) -> None:
    target = tmp_path / "rescaled.safetensors"
    policy = parse_policy("amax*8")
    report = rescale_checkpoint(smooth.path, policy, smooth.statistics, target)
    changed = {la.name: la for la in report.layers}[LAYER]
    assert changed.format == "nvfp4_smooth" and changed.change == pytest.approx(2.0, rel=1e-5)
    assert f"for the input times {PRE_QUANT_SCALE}" in changed.reason
    before, after = load_file(smooth.path), load_file(target)
    assert torch.equal(before[f"{LAYER}.{PRE_QUANT_SCALE}"], after[f"{LAYER}.{PRE_QUANT_SCALE}"])
    assert verify_checkpoint(target, smooth.source).problems == ()


def test_scales_of_a_file_do_not_fit_the_multiplied_input(smooth: Smooth, tmp_path: Path) -> None:
    scales = tmp_path / "scales.json"
    scales.write_text(json.dumps({LAYER: 0.01, "blocks.0.b": 0.02}))
    report = rescale_checkpoint(smooth.path, parse_policy(f"file={scales}"))
    by_name = {la.name: la for la in report.layers}
    assert by_name[LAYER].after is None and "without a calibration" in by_name[LAYER].reason
    assert by_name["blocks.0.b"].after == pytest.approx(0.02)
    fixed = rescale_checkpoint(smooth.path, parse_policy("fixed=0.5"))
    assert all(la.after == 0.5 for la in fixed.layers)
    # nor do its own scales fit layers without factors
    assert set(read_scales(smooth.path).amax) == {"blocks.0.b", "blocks.1.b"}


def test_without_hessians_the_layers_are_plain_nvfp4(smooth: Smooth, tmp_path: Path) -> None:
    target = tmp_path / "plain.safetensors"
    with open_source(smooth.source) as source:
        report = convert(source, plan_of(source, RULES), target)
    assert report.counts() == {"nvfp4": 4} and report.needs_comfyui == ""
    assert any("2 layers get nvfp4 instead of nvfp4_smooth" in text for text in report.warnings)
    assert report.bytes_after == sum(t.nbytes for t in load_file(target).values())
    assert verify_checkpoint(target, smooth.source).notes == ()


def test_an_older_comfyui_is_refused(smooth: Smooth) -> None:
    recipe = Recipe.model_validate({"rules": [{"pattern": "*.a", "format": "nvfp4_smooth"}]})
    with open_source(smooth.source) as source, pytest.raises(PlanError, match=r"--comfyui 0\.33"):
        make_plan(recipe, take_inventory(source))


def test_a_sensitivity_measures_the_same_encoding(smooth: Smooth) -> None:
    with open_source(smooth.source) as source:
        found = measure_sensitivity(
            source, smooth.statistics, ["nvfp4", "nvfp4_smooth"], rounding="gptq"
        ).candidates(LAYER)
    layer = {la.name: la for la in smooth.report.layers}[LAYER]
    errors = found["nvfp4_smooth"]
    assert errors.w4a4 == pytest.approx(layer.output_error_w4a4, rel=1e-3)
    assert errors.w4a4 is not None and found["nvfp4"].w4a4 is not None
    assert errors.w4a4 < found["nvfp4"].w4a4


def test_a_probe_computes_what_the_file_will(smooth: Smooth) -> None:
    fmt, x = get_format("nvfp4_smooth"), loud()(88)
    with open_source(smooth.source) as source:
        layer = take_inventory(source).layers[LAYER]
        decision = decide_scales(parse_policy("amax"), smooth.statistics, [LAYER])[LAYER]
        observed = ObservedInputs(smooth.statistics).of(LAYER)
        probed = LayerEncoder(source, "gptq", "cpu")(
            layer, fmt, input_scale_of(fmt, decision), observed
        )
    assert probed is not None
    with open_tensors(smooth.path) as checkpoint:
        rounding = read_input_roundings(checkpoint)[LAYER]
        bias = checkpoint.load(f"{LAYER}.bias").float()
    with open_source(smooth.path) as decoded:
        weight = decoded.load(f"{LAYER}.weight")
    wanted = rounding.apply(x) @ weight.T + bias
    assert torch.allclose(probed.forward(x), wanted, rtol=1e-4, atol=1e-4)
