"""Converted checkpoints hold every tensor as ComfyUI's loader expects it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import comfy_kitchen
import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint, verify_checkpoint
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.conversion.report import ConversionReport
from nvfp4_foundry.quant.planning import Plan, get_preset, make_plan, take_inventory
from nvfp4_foundry.quant.sources import StateDictSource, open_source
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import MARKERS, Toy, assert_same, bits, metadata_of, plan_of


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


def test_shapes_that_need_padding_and_names_beyond_ascii(tmp_path: Path) -> None:
    """Rows are padded to 16, and names are escaped twice in the header."""
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
