"""The whole pipeline: the demo model and toys become checkpoints as ComfyUI reads them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import comfy_kitchen
import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.calibration import ActivationCollector, CalibrationStatistics
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.convert import convert, quantize_to_memory, save_model
from nvfp4_foundry.quant.errors import CalibrationError, CheckpointError, FormatError, PlanError
from nvfp4_foundry.quant.planning import (
    Plan,
    Recipe,
    get_preset,
    make_plan,
    parse_rule_lines,
    take_inventory,
)
from nvfp4_foundry.quant.report import ConversionReport
from nvfp4_foundry.quant.sources import AppliedLora, StateDictSource, TensorSource, open_source
from safetensors import safe_open
from safetensors.torch import load_file, save_file

Toy = Callable[..., dict[str, torch.Tensor]]
RULES = """
*.self_attn.v = nvfp4_w4a16
*.ffn.2 @ any = float8_e4m3fn
blocks.*.*_attn.? = nvfp4
blocks.*.ffn.0 = nvfp4
head.modulation = fp32
"""
MARKERS = {
    "nvfp4": {"format": "nvfp4"},
    "nvfp4_w4a16": {"format": "nvfp4", "full_precision_matrix_mult": True},
    "float8_e4m3fn": {"format": "float8_e4m3fn"},
}


def plan_of(source: TensorSource, lines: str = RULES, **numbers: Any) -> Plan:
    recipe = Recipe(rules=parse_rule_lines(lines), **{"rounding": "max", **numbers})
    return make_plan(recipe, take_inventory(source))


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> None:
    assert set(a) == set(b)
    for name, tensor in a.items():
        assert (tensor.dtype, tensor.shape) == (b[name].dtype, b[name].shape), name
        assert torch.equal(bits(tensor), bits(b[name])), name


def roundup(value: int, multiple: int) -> int:
    return (value + multiple - 1) // multiple * multiple


def assert_layout(path: Path, plan: Plan, source: Mapping[str, torch.Tensor]) -> None:
    """Check every tensor of a checkpoint against what ComfyUI's loader expects."""
    stored, metadata = load_file(path), metadata_of(path)
    expected = set(source)
    for layer in plan.quantized():
        name, (rows, columns) = layer.name, layer.shape
        assert json.loads(bytes(stored[f"{name}.comfy_quant"].tolist())) == MARKERS[layer.format]
        assert stored[f"{name}.comfy_quant"].dtype == torch.uint8
        weight, scale = stored[f"{name}.weight"], stored[f"{name}.weight_scale"]
        original = source[f"{name}.weight"].float()
        expected |= {f"{name}.comfy_quant", f"{name}.weight_scale"}
        if layer.format == "float8_e4m3fn":
            assert (weight.dtype, weight.shape) == (torch.float8_e4m3fn, (rows, columns))
            assert (scale.dtype, scale.shape) == (torch.float32, ())
            assert float(scale) == pytest.approx(float(original.abs().max()) / 448, rel=1e-6)
            decoded, bound = weight.float() * scale, 0.04
        else:
            scale_2 = stored[f"{name}.weight_scale_2"]
            expected.add(f"{name}.weight_scale_2")
            assert (weight.dtype, weight.shape) == (
                torch.uint8, (roundup(rows, 16), roundup(columns, 16) // 2),
            )  # fmt: skip
            assert (scale.dtype, scale.shape) == (
                torch.float8_e4m3fn,
                (roundup(roundup(rows, 16), 128), roundup(roundup(columns, 16) // 16, 4)),
            )
            assert (scale_2.dtype, scale_2.shape) == (torch.float32, ())
            assert float(scale_2) == pytest.approx(float(original.abs().max()) / 2688, rel=1e-6)
            decoded = comfy_kitchen.dequantize_nvfp4(weight, scale_2, scale, torch.float32)
            decoded, bound = decoded[:rows, :columns], 0.13
        error = float((decoded - original).norm() / original.norm())
        assert 0.01 < error < bound, name
    assert set(stored) == expected
    announced = json.loads(metadata["_quantization_metadata"])
    assert announced == {
        "format_version": "1.0",
        "layers": {layer.name: MARKERS[layer.format] for layer in plan.quantized()},
    }


def assert_unquantized_equal(path: Path, plan: Plan, source: Mapping[str, torch.Tensor]) -> None:
    stored = load_file(path)
    kept = {layer.name: layer for layer in plan.layers if layer not in plan.quantized()}
    for name, tensor in source.items():
        layer = name.removesuffix(".weight")
        if layer in kept and kept[layer].format != "keep":
            tensor = tensor.to({"fp32": torch.float32, "bf16": torch.bfloat16}[kept[layer].format])
        if layer in kept or name.endswith(".bias"):
            assert stored[name].dtype == tensor.dtype, name
            assert torch.equal(bits(stored[name]), bits(tensor)), name


@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        ("wan2.2-14b", {"edge_blocks": 1}),
        ("all", {}),
        ("all", {"format": "nvfp4_w4a16"}),
        ("smart", {}),
    ],
)
def test_the_demo_model(tmp_path: Path, preset: str, settings: dict[str, int | str]) -> None:
    target = tmp_path / "out.safetensors"
    source = load_file(MODEL_PATH)
    with open_source(MODEL_PATH) as opened:
        recipe = get_preset(preset).build(settings).with_numbers(rounding="max")
        plan = make_plan(recipe, take_inventory(opened))
        report = convert(opened, plan, target)
    assert_layout(target, plan, source)
    assert_unquantized_equal(target, plan, source)
    result = verify_checkpoint(target, MODEL_PATH)
    assert (result.problems, result.quantized) == ((), 40)
    assert os.listdir(tmp_path) == [target.name]
    assert_report(report, plan, target)


def assert_report(report: ConversionReport, plan: Plan, target: Path) -> None:
    stored = load_file(target)
    assert [(la.name, la.format) for la in report.layers] == [
        (la.name, la.format) for la in plan.layers
    ]
    assert report.bytes_after == sum(t.nbytes for t in stored.values())
    assert report.bytes_before == plan.bytes_before
    planned = {la.name: la.bytes_after for la in plan.layers}
    for layer in report.layers:  # the plan reserves an input_scale, which needs statistics
        reserved = 4 if layer.format in ("nvfp4", "float8_e4m3fn") else 0
        assert layer.bytes_after == planned[layer.name] - reserved
    for layer in report.layers:
        assert (layer.weight_error is not None) == (layer.format in MARKERS)
    expected = {la.name for la in plan.quantized() if la.format != "nvfp4_w4a16"}
    assert set(report.dynamic_layers) == expected


def test_metadata_and_provenance(tmp_path: Path, toy_wan: Toy) -> None:
    path, target = tmp_path / "my model.safetensors", tmp_path / "out.safetensors"
    save_file(toy_wan(), path, {"format": "pt", "license": "mine", "_quantization_metadata": "{}"})
    with open_source(path) as source:
        plan = plan_of(source, headroom=3.0)
        report = convert(source, plan, target)
        digest = source.fingerprint().digest
    metadata = metadata_of(target)
    assert set(metadata) == {"format", "license", "_quantization_metadata", "nvfp4_foundry"}
    assert (metadata["format"], metadata["license"]) == ("pt", "mine")
    provenance = json.loads(metadata["nvfp4_foundry"])
    assert provenance["tool"].startswith("nvfp4-foundry ")
    assert provenance["source"] == "my model.safetensors"
    assert provenance["source_digest"] == digest
    assert provenance["calibration"] is None
    assert Recipe.model_validate(provenance["recipe"]) == plan.recipe
    errors = {la.name: la.weight_error for la in report.layers if la.weight_error is not None}
    assert provenance["errors"] == pytest.approx(errors, rel=1e-4)
    assert len(errors) == 40


def test_inspection_shows_what_was_planned(tmp_path: Path, toy_wan: Toy) -> None:
    target = tmp_path / "out.safetensors"
    source = StateDictSource(toy_wan(), metadata={"a": "b"})
    plan = plan_of(source)
    report = convert(source, plan, target)
    summary = inspect_checkpoint(target)
    dtypes = {"bfloat16": "bf16"}
    assert {la.name: (la.kind, la.shape, la.format) for la in summary.layers} == {
        la.name: (la.kind, la.shape, dtypes[la.source_dtype] if la.format == "keep" else la.format)
        for la in plan.layers
    }
    assert {la.name: la.bytes for la in summary.layers} == {
        la.name: la.bytes_after for la in report.layers
    }
    assert summary.total_bytes == report.bytes_after
    assert summary.architecture == str(plan.architecture)
    assert summary.metadata["a"] == "b"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_other_source_dtypes(tmp_path: Path, toy_wan: Toy, dtype: torch.dtype) -> None:
    path, target = tmp_path / "source.safetensors", tmp_path / "out.safetensors"
    tensors = toy_wan(dtype=dtype)
    save_file(tensors, path)
    with open_source(path) as source:
        plan = plan_of(source)
        convert(source, plan, target)
    assert_layout(target, plan, tensors)
    assert_unquantized_equal(target, plan, tensors)
    assert verify_checkpoint(target, path).problems == ()


def test_memory_and_file_and_repetition_are_identical(tmp_path: Path, toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan())
    plan = plan_of(source)
    reports = [convert(source, plan, tmp_path / name) for name in ("a", "b")]
    model = quantize_to_memory(source, plan)
    save_model(model, tmp_path / "c")
    first = load_file(tmp_path / "a")
    for other in (load_file(tmp_path / "b"), dict(model.tensors), load_file(tmp_path / "c")):
        assert_same(first, other)
    assert reports[0].layers == reports[1].layers == model.report.layers
    assert verify_checkpoint(tmp_path / "c").problems == ()
    for name, text in metadata_of(tmp_path / "a").items():
        if name != "nvfp4_foundry":  # holds the time
            assert model.metadata[name] == metadata_of(tmp_path / "c")[name] == text


def test_a_model_in_memory_is_independent_of_its_source(toy_wan: Toy) -> None:
    tensors = toy_wan()
    model = quantize_to_memory(StateDictSource(tensors), plan_of(StateDictSource(tensors)))
    before = model.tensors["head.head.weight"].clone()
    tensors["head.head.weight"].zero_()
    assert torch.equal(model.tensors["head.head.weight"], before)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "model.", "net."])
def test_a_prefixed_source_gives_the_same(tmp_path: Path, toy_wan: Toy, prefix: str) -> None:
    tensors = toy_wan()
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path / "in")
    plain = StateDictSource(tensors)
    convert(plain, plan_of(plain), tmp_path / "plain")
    with open_source(tmp_path / "in") as source:
        report = convert(source, plan_of(source), tmp_path / "out")
    assert_same(load_file(tmp_path / "plain"), load_file(tmp_path / "out"))
    assert report.warnings[0] == f"names are read without their prefix {prefix!r}"
    assert ["no static input_scale" in warning for warning in report.warnings[1:]] == [True]
    assert verify_checkpoint(tmp_path / "out", tmp_path / "in").problems == ()


def test_shapes_that_need_padding_and_names_beyond_ascii(tmp_path: Path) -> None:
    """Rows are padded to 16; every name is written twice into the header, escaped."""
    torch.manual_seed(0)
    tensors = {
        f'blocks.{i}.{"ö" * 40}"\\{p}.{leaf}': torch.randn((40, 96) if leaf == "weight" else (40,))
        for i in range(3) for p in "ab" for leaf in ("weight", "bias")
    }  # fmt: skip
    save_file(tensors, tmp_path / "in")
    with open_source(tmp_path / "in") as source:
        plan = plan_of(source, "* = nvfp4")
        convert(source, plan, tmp_path / "out")
    assert len(plan.quantized()) == 6
    assert_layout(tmp_path / "out", plan, tensors)
    assert verify_checkpoint(tmp_path / "out", tmp_path / "in").problems == ()
    assert verify_checkpoint(tmp_path / "out").problems == ()
    assert {la.shape for la in inspect_checkpoint(tmp_path / "out").layers} == {(40, 96)}


def test_empty_markers_and_integers_are_kept(tmp_path: Path, toy_wan: Toy) -> None:
    tensors = {
        **toy_wan(), "__index_timestep_zero__": torch.empty(0), "ids": torch.arange(3),
        "scalar": torch.tensor(2.5).bfloat16(), "flag": torch.tensor(True),
    }  # fmt: skip
    source = StateDictSource(tensors)
    convert(source, plan_of(source), tmp_path / "out")
    stored = load_file(tmp_path / "out")
    for name in ("__index_timestep_zero__", "ids", "scalar", "flag"):
        assert_same({name: tensors[name]}, {name: stored[name]})


def test_an_all_zero_weight(tmp_path: Path, toy_wan: Toy) -> None:
    tensors = toy_wan()
    for name in ("blocks.1.ffn.0.weight", "blocks.1.ffn.2.weight"):
        tensors[name].zero_()
    save_file(tensors, tmp_path / "in")
    with open_source(tmp_path / "in") as source:
        convert(source, plan_of(source), tmp_path / "out")
    assert verify_checkpoint(tmp_path / "out", tmp_path / "in").problems == ()
    assert not load_file(tmp_path / "out")["blocks.1.ffn.0.weight"].any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("layer", ["blocks.2.self_attn.q", "blocks.2.ffn.2"])
def test_a_damaged_weight_is_named(tmp_path: Path, toy_wan: Toy, value: float, layer: str) -> None:
    tensors = toy_wan()
    tensors[f"{layer}.weight"][-1, -1] = value
    source = StateDictSource(tensors)
    with pytest.raises(FormatError, match=f"{layer}.weight: the weight holds NaN or Inf"):
        convert(source, plan_of(source), tmp_path / "out")
    assert os.listdir(tmp_path) == []


class Stop(BaseException):
    """As ComfyUI's interruption, no Exception."""


@pytest.mark.parametrize("at", [0, 5, -1])
def test_stopping_leaves_nothing(tmp_path: Path, toy_wan: Toy, at: int) -> None:
    source = StateDictSource(toy_wan())
    plan = plan_of(source)
    calls: list[str] = []

    def stop(done: int, total: int, name: str) -> None:
        calls.append(name)
        if name == plan.layers[at].name:
            raise Stop

    before = threading.active_count()
    with pytest.raises(Stop):
        convert(source, plan, tmp_path / "out", on_progress=stop)
    assert calls == [la.name for la in plan.layers][: (at % len(plan.layers)) + 1]
    assert os.listdir(tmp_path) == []
    assert threading.active_count() == before
    with pytest.raises(Stop):
        quantize_to_memory(source, plan, on_progress=stop)


def test_stopping_keeps_the_file_that_was_to_be_overwritten(tmp_path: Path, toy_wan: Toy) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"precious")
    source = StateDictSource(toy_wan())

    def stop(*_: object) -> None:
        raise Stop

    with pytest.raises(CheckpointError, match="exists"):
        convert(source, plan_of(source), target)
    with pytest.raises(Stop):
        convert(source, plan_of(source), target, overwrite=True, on_progress=stop)
    assert target.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["out"]
    convert(source, plan_of(source), target, overwrite=True)
    assert verify_checkpoint(target).problems == ()


def test_progress_counts_source_bytes(tmp_path: Path, toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan())
    seen: list[tuple[int, int, str]] = []
    convert(source, plan_of(source), tmp_path / "out", on_progress=lambda *s: seen.append(s))
    assert [name for _, _, name in seen] == list(take_inventory(source).layers)
    assert {total for _, total, _ in seen} == {source.nbytes}
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[-1][0] == source.nbytes


@pytest.mark.parametrize("changes", [{"blocks": 5}, {"width": 128}], ids=str)
def test_a_plan_for_another_model_is_refused(
    tmp_path: Path, toy_wan: Toy, changes: dict[str, int]
) -> None:
    plan = plan_of(StateDictSource(toy_wan()))
    other = StateDictSource(toy_wan(**changes), "other.safetensors")
    with pytest.raises(PlanError, match=r"another model.*plan again from other\.safetensors"):
        convert(other, plan, tmp_path / "out")
    assert os.listdir(tmp_path) == []


class Blocks(torch.nn.Module):
    """The Linears of the toy's blocks, by their names, all fed the same input."""

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
    """Return a toy, statistics of three calls that miss one layer, and the amax of each layer."""
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


class Merged(StateDictSource):
    """A source whose weights were merged: float32, announced in the dtype they are stored in."""

    def __init__(self, merged: Mapping[str, torch.Tensor], dtype: torch.dtype):
        super().__init__({name: tensor.to(dtype) for name, tensor in merged.items()})
        self.loras = (AppliedLora("a.safetensors", 0.5), AppliedLora("b.safetensors", None))
        self._merged = merged

    def load(self, name: str) -> torch.Tensor:
        return self._merged[name]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merged_weights_are_quantized_from_fp32_and_stored_in_16_bits(
    tmp_path: Path, toy_wan: Toy, dtype: torch.dtype
) -> None:
    exact = toy_wan(dtype=torch.float32)
    source, target = Merged(exact, dtype), tmp_path / "q.safetensors"
    rules = f"{RULES}\n*.norm3 = bf16"
    report = convert(source, plan_of(source, rules), target)
    ours = load_file(target)
    assert report.bytes_after == sum(tensor.nbytes for tensor in ours.values())
    wide = convert_in_memory(StateDictSource(exact), rules)
    for name, tensor in ours.items():
        layer = name.rpartition(".")[0]
        quantized = f"{layer}.comfy_quant" in ours and not name.endswith(".bias")
        stored = exact[name].to(tensor.dtype) if not quantized else wide[name]
        assert torch.equal(bits(tensor), bits(stored)), name
    assert ours["blocks.0.ffn.0.bias"].dtype == ours["blocks.0.modulation"].dtype == dtype
    assert ours["blocks.0.norm3.weight"].dtype == torch.bfloat16
    assert verify_checkpoint(target).ok


def convert_in_memory(source: TensorSource, rules: str) -> Mapping[str, torch.Tensor]:
    return quantize_to_memory(source, plan_of(source, rules)).tensors


@pytest.mark.parametrize("name", ["blocks.0.ffn.0.bias", "patch_embedding.weight"])
def test_a_merge_that_overflows_fp16_is_named(toy_wan: Toy, name: str) -> None:
    exact = toy_wan(dtype=torch.float32)
    exact[name].view(-1)[3] = 70_000
    source = Merged(exact, torch.float16)
    with pytest.raises(FormatError, match=f"{name}: values above 65504"):
        quantize_to_memory(source, plan_of(source))


def test_loras_are_listed(tmp_path: Path, toy_wan: Toy) -> None:
    source = Merged(toy_wan(dtype=torch.float32), torch.bfloat16)
    report = convert(source, plan_of(source), tmp_path / "q.safetensors")
    assert (
        "LoRAs       a.safetensors at 0.5, b.safetensors at unknown strength" in report.headline()
    )
    listed = [
        {"name": "a.safetensors", "strength": 0.5},
        {"name": "b.safetensors", "strength": None},
    ]
    assert json.loads(report.dumps())["loras"] == listed
    assert inspect_checkpoint(tmp_path / "q.safetensors").provenance["loras"] == listed


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
