"""Files in every format: write, read, describe and compare them, and find damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.checkpoint import (
    compare_checkpoints,
    inspect_checkpoint,
    verify_checkpoint,
)
from nvfp4_foundry.quant.checkpoint.decoded import decoded_tensors
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.conversion.report import ConversionReport
from nvfp4_foundry.quant.formats import FORMATS, get_format
from nvfp4_foundry.quant.hardware.emulation import read_input_roundings
from nvfp4_foundry.quant.planning import Recipe, make_plan, take_inventory
from nvfp4_foundry.quant.sources import open_source, open_tensors
from nvfp4_foundry.quant.sources.stored_layers import read_layout
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import for_its_formats, metadata_of

# Factors per channel need a calibration, see ``test_smooth_file.py``.
QUANTIZED = [n for n, fmt in FORMATS.items() if fmt.is_quantized and not fmt.has_channel_scale]
# 72 rows are padded by the formats of blocks; the bias says how many are real.
SHAPE = (72, 256)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "source.safetensors"
    save_file(
        {
            "a.weight": torch.randn(SHAPE, generator=generator).bfloat16(),
            "a.bias": torch.randn(72, generator=generator).bfloat16(),
            "embed_tokens.weight": torch.randn(100, 256, generator=generator).bfloat16(),
        },
        path,
    )
    return path


def quantize(source: Path, target: Path, *rules: dict[str, Any], **fields: Any) -> ConversionReport:
    recipe = for_its_formats(Recipe.model_validate({"rules": rules, **fields}))
    with open_source(source) as opened:
        plan = make_plan(recipe, take_inventory(opened))
        report = convert(opened, plan, target, overwrite=True)
        assert (
            sum(info.nbytes for info in open_tensors(target).tensors.values()) <= plan.bytes_after
        )
    return report


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_file_is_read_as_it_was_written(name: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    report = quantize(source, target, {"format": name})
    assert verify_checkpoint(target).problems == ()
    assert verify_checkpoint(target, source).problems == ()

    with open_tensors(target) as opened:
        layer = read_layout(opened)["a"]
        assert layer.format is get_format(name) and layer.shape() == SHAPE
        decoded = decoded_tensors(opened)["a.weight"]
    summary = {la.name: la for la in inspect_checkpoint(target).layers}["a"]
    assert (summary.format, summary.kind, summary.shape) == (name, "linear", SHAPE)

    original = load_file(source)["a.weight"].double()
    error = float((decoded.double() - original).norm() / original.norm())
    assert error == pytest.approx(report.layers[0].weight_error, rel=1e-3)
    compared = {la.name: la for la in compare_checkpoints(source, target).layers}["a"]
    assert compared.format_b == name
    assert compared.relative_error == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_format_compares_with_every_other(name: str, source: Path, tmp_path: Path) -> None:
    """Padded and packed weights compare as the same weight."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    quantize(source, first, {"format": name})
    quantize(source, second, {"format": "nvfp4"})
    compared = {la.name: la for la in compare_checkpoints(first, second).layers}["a"]
    assert compared.shape == SHAPE
    assert (compared.relative_error == 0) == ("nvfp4" in name)
    assert compared.relative_error < 0.25


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "int8_rowwise", "int8_convrot"])
def test_embeddings_have_no_input_scale(name: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    rule = {"format": name, "kinds": ["embedding", "linear"]}
    report = quantize(source, target, rule, input_scale="fixed=0.5")
    stored = load_file(target)
    assert "embed_tokens.input_scale" not in stored
    assert ("a.input_scale" in stored) == (name == "float8_e4m3fn")
    assert not any("embed_tokens" in warning for warning in report.warnings)
    assert {la.name: la.format for la in report.layers}["embed_tokens"] == name
    assert verify_checkpoint(target, source).problems == ()


def test_only_formats_with_static_scales_are_dynamic_without_one(
    source: Path, tmp_path: Path
) -> None:
    for name in ("int8_rowwise", "mxfp8", "convrot_w4a4"):
        report = quantize(source, tmp_path / "out.safetensors", {"format": name})
        assert report.dynamic_layers == () and report.layers[0].input_scale is None


@pytest.mark.parametrize("name", QUANTIZED)
def test_which_inputs_native_hardware_rounds(name: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    quantize(source, target, {"format": name})
    with open_tensors(target) as opened:
        roundings = read_input_roundings(opened)
    in_16_bits = "_w4a16" in name or "_w8a16" in name or name == "float8_e5m2"
    assert set(roundings) == (set() if in_16_bits else {"a"})
    for rounding in roundings.values():
        x = torch.randn(2, 5, 256)
        rounded = rounding.apply(x)
        assert rounded.shape == x.shape
        assert 0 < float((rounded - x).norm() / x.norm()) < 0.25


@pytest.mark.parametrize(
    ("name", "suffix", "change", "problem"),
    [
        (
            "mxfp8",
            "weight_scale",
            lambda t: t.fill_(255),
            "weight_scale holds NaN or infinite values",
        ),
        ("int8_rowwise", "weight_scale", lambda t: t.neg(), "negative"),
        ("int8_rowwise", "weight_scale", lambda t: t.reshape(-1), "the format needs"),
        ("convrot_w4a4", "weight_scale", lambda t: t[:-1].contiguous(), "the format needs"),
        ("convrot_w4a4", "weight", lambda t: -t, "differs from the source"),
        ("int8_convrot", "weight", lambda t: t.roll(1, 1), "differs from the source"),
        ("float8_e5m2", "weight", lambda t: t.view(torch.int8), "the format needs"),
    ],
)
def test_damage_is_found(
    name: str, suffix: str, change: Any, problem: str, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.safetensors"
    quantize(source, target, {"format": name})
    tensors = load_file(target)
    tensors[f"a.{suffix}"] = change(tensors[f"a.{suffix}"].clone())
    save_file(tensors, target, metadata_of(target))
    problems = verify_checkpoint(target, source).problems
    assert any(problem in text for text in problems), problems


@pytest.mark.parametrize("name", ["nvfp4", "mxfp8"])
def test_block_scales_may_be_bytes_or_floats(name: str, source: Path, tmp_path: Path) -> None:
    """ComfyUI views them as it needs; other tools write either."""
    target = tmp_path / "out.safetensors"
    quantize(source, target, {"format": name})
    tensors = load_file(target)
    stored = tensors["a.weight_scale"]
    other = {"nvfp4": torch.uint8, "mxfp8": torch.float8_e8m0fnu}[name]
    tensors["a.weight_scale"] = stored.view(other)
    save_file(tensors, target, metadata_of(target))
    assert verify_checkpoint(target, source).problems == ()
