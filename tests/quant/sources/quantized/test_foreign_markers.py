"""Markers of convert_to_quant and others, kohya's blocks, and markers that say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import CheckpointError, SourceError
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.rounding import MaxRule
from nvfp4_foundry.quant.sources import open_source, open_to_look
from safetensors.torch import save_file

from tests.helpers import quantized_files as qf
from tests.helpers.conversions import plan_of
from tests.helpers.odd_files import (
    BOUNDS,
    E4M3,
    E5M2,
    Split,
    coded,
    marker,
    nvfp4_file,
    per_block,
    per_group,
    per_row,
    per_tensor,
)

from .conftest import Judge

I8 = torch.int8
#: Marker, dtype of the codes, their scales; whether the marker says the size of blocks.
CONVENTIONS = [
    ({"format": "float8_e4m3fn_rowwise"}, E4M3, per_row),
    ({"format": "float8_e4m3fn_blockwise", "group_size": 64}, E4M3, per_block),
    ({"format": "float8_e4m3fn_block3d", "group_size": 32}, E4M3, per_group),
    ({"format": "int8_blockwise", "group_size": 64}, I8, per_block),
    ({"format": "float8_e4m3fn"}, E4M3, per_row),
    ({"format": "float8_e4m3fn", "group_size": 32}, E4M3, per_group),
    ({"format": "float8_e4m3fn"}, E4M3, per_block),
    ({"format": "float8_e5m2"}, E5M2, per_row),
    ({"format": "int8_tensorwise"}, I8, per_group),
    ({"format": "int8_tensorwise"}, I8, per_block),
]


@pytest.mark.parametrize(("content", "dtype", "split"), CONVENTIONS)
def test_markers_that_comfyui_does_not_know(
    judge: Judge, model: qf.Tensors, content: dict[str, object], dtype: torch.dtype, split: Split
) -> None:
    error, notes = judge(coded(model, lambda w: split(w, dtype), "weight_scale", **content))
    assert 0.001 < error < BOUNDS[dtype]
    assert any("ComfyUI itself does not load" in note for note in notes)


@pytest.mark.parametrize("flat", [True, False])
def test_scales_per_row_may_be_a_vector(judge: Judge, model: qf.Tensors, flat: bool) -> None:
    tensors = coded(
        model,
        lambda w: per_row(w, E4M3),
        "weight_scale",
        change=lambda s: s.flatten() if flat else s,
        format="float8_e4m3fn_rowwise",
    )
    error, _ = judge(tensors)
    assert error < BOUNDS[E4M3]


@pytest.mark.parametrize("two_levels", [True, False])
@pytest.mark.parametrize("split", [per_group, per_row, per_tensor])
def test_kohyas_scaled_fp8(judge: Judge, model: qf.Tensors, split: Split, two_levels: bool) -> None:
    """musubi-tuner: scale_weight [1], [out, 1] or [out, blocks, 1]; newer: times a tensor scale."""
    tensors = coded(model, lambda w: split(w, E4M3), "scale_weight")
    if two_levels:
        for name in [n for n in tensors if n.endswith("scale_weight")]:
            largest = tensors[name].max()
            tensors |= {name: tensors[name] / largest, f"{name}_tensor": largest}
    error, _ = judge({**tensors, "scaled_fp8": torch.zeros(2).to(E4M3)})
    assert 0.001 < error < BOUNDS[E4M3]


def test_blocks_of_kohya_need_not_be_a_power_of_two(tmp_path: Path) -> None:
    """Groups [out, groups, 1] always divide the width: 960 columns in 8 are groups of 120."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 960, generator=generator)
    values, scale = per_group(weight, E4M3, 120)
    path = tmp_path / "model.safetensors"
    save_file({"l.weight": values, "l.scale_weight": scale, "scaled_fp8": torch.zeros(0)}, path)
    with open_source(path) as source:
        error = (source.load("l.weight") - weight).norm() / weight.norm()
    assert error < BOUNDS[E4M3]


def test_hybrid_mxfp8_is_mxfp8(judge: Judge, model: qf.Tensors) -> None:
    """weight_scalar repeats the largest block scale, for GPUs without MXFP8."""
    tensors = qf.comfyui_mxfp8(model)
    for name in [n for n in tensors if n.endswith("comfy_quant")]:
        tensors[name] = marker(format="hybrid_mxfp8", group_size=32)
        tensors[name.replace("comfy_quant", "weight_scalar")] = torch.tensor(0.5)
    error, notes = judge(tensors)
    assert 0.001 < error < 0.04
    assert any("hybrid_mxfp8" in note for note in notes)


def test_weight_scalar_of_others_is_not_ignored(judge: Judge, model: qf.Tensors) -> None:
    tensors = {**qf.comfyui_mxfp8(model), "blocks.0.ffn.0.weight_scalar": torch.tensor(2.0)}
    with pytest.raises(SourceError, match=r"blocks\.0\.ffn\.0\.weight_scalar does not belong"):
        judge(tensors)


@pytest.mark.parametrize(
    ("content", "dtype", "split", "suffix"),
    [
        ({"format": "int8_blockwise"}, E4M3, per_block, "weight_scale"),
        ({"format": "float8_e4m3fn_rowwise"}, I8, per_row, "weight_scale"),
        ({"format": "float8_e4m3fn_rowwise"}, E4M3, per_row, ""),
    ],
)
def test_what_contradicts_such_a_marker_is_named(
    judge: Judge, model: qf.Tensors, content: dict[str, object], dtype: torch.dtype,
    split: Split, suffix: str,
) -> None:  # fmt: skip
    tensors = coded(model, lambda w: split(w, dtype), suffix, **content)
    with pytest.raises(CheckpointError, match=rf"blocks\.0\..* is marked as {content['format']}"):
        judge(tensors)


def test_rotated_codes_with_scales_per_group_are_refused(judge: Judge, model: qf.Tensors) -> None:
    content = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 64}
    with pytest.raises(SourceError, match=r"convrot.*not read; start from"):
        judge(coded(model, lambda w: per_group(w, I8), "weight_scale", **content))


def test_scales_that_do_not_fit_are_named(judge: Judge, model: qf.Tensors) -> None:
    tensors = coded(
        model,
        lambda w: per_row(w, E4M3),
        "weight_scale",
        change=lambda scale: scale[:7],
        format="float8_e4m3fn",
    )
    with pytest.raises(SourceError, match=r"cannot be decoded with blocks\.0\..*weight_scale"):
        judge(tensors)


#: Files whose markers name no format although dtypes and shapes allow only one.
ONE_READING = {
    "float8 per tensor": (per_tensor, E4M3),
    "float8 per row": (per_row, E4M3),
    "float8 e5m2": (per_tensor, E5M2),
    "int8 per tensor": (per_tensor, I8),
    "int8 per row": (per_row, I8),
    "nvfp4": (None, torch.uint8),
}


@pytest.mark.parametrize("kind", ONE_READING)
@pytest.mark.parametrize("in_header", [True, False])
def test_a_marker_without_a_format_is_inferred(
    tmp_path: Path, model: qf.Tensors, judge: Judge, kind: str, in_header: bool
) -> None:
    split, dtype = ONE_READING[kind]
    content = {"full_precision_matrix_mult": False}
    if split is None:
        tensors = nvfp4_file(model, comfyui=True, content=content)
    else:
        tensors = coded(model, lambda w: split(w, dtype), "weight_scale", **content)
    error, _ = judge(tensors)
    assert 0.001 < error < BOUNDS[dtype]
    path = tmp_path / "model.safetensors"
    if in_header:
        layers = {n.removesuffix(".comfy_quant"): {} for n in tensors if n.endswith("comfy_quant")}
        bare = {n: t.contiguous() for n, t in tensors.items() if not n.endswith("comfy_quant")}
        text = json.dumps({"format_version": "1.0", "layers": layers})
        save_file(bare, path, {"_quantization_metadata": text})
    with open_source(path) as source:
        stored = source.stored_weight("blocks.0.ffn.0.weight")
        assert stored is not None and not source.comfyui_reads
        wanted = model["blocks.0.ffn.0.weight"].float()
        assert (stored.decode() - wanted).norm() / wanted.norm() < BOUNDS[dtype]


def test_mxfp8_is_inferred_too(judge: Judge, model: qf.Tensors) -> None:
    tensors = qf.comfyui_mxfp8(model)
    tensors |= {n: marker(a=1) for n in tensors if n.endswith("comfy_quant")}
    error, _ = judge(tensors)
    assert error < 0.04


def test_two_possible_formats_are_refused(judge: Judge, model: qf.Tensors, tmp_path: Path) -> None:
    """int8 with a vector of scales may hold one code per byte, or two (convrot_w4a4)."""
    tensors = coded(
        model, lambda w: per_row(w, I8), "weight_scale", change=torch.flatten, convrot=False
    )
    with pytest.raises(SourceError, match=r"names no format.*weight_scale float32.*start from"):
        judge(tensors)
    with open_to_look(tmp_path / "model.safetensors") as source:
        assert "not readable" in str(source.info("blocks.0.ffn.0.weight").stored)


def test_linear_dtype_belongs_to_4_bits(tmp_path: Path) -> None:
    weight = torch.randn(32, 256, generator=torch.Generator().manual_seed(0))
    fmt = get_format("convrot_w4a4")
    tensors = {f"l.{name}": part for name, part in fmt.encode(weight, MaxRule()).tensors.items()}
    tensors["l.comfy_quant"] = marker(linear_dtype="int4")
    save_file(tensors, tmp_path / "model.safetensors")
    with open_source(tmp_path / "model.safetensors") as source:
        assert (source.load("l.weight") - weight).norm() / weight.norm() < 0.2


@pytest.mark.parametrize("content", ["nul", {}])
def test_a_marker_of_nul_bytes_means_unquantized(
    tmp_path: Path, judge: Judge, model: qf.Tensors, content: object
) -> None:
    tensors = coded(model, lambda w: per_row(w, I8), "weight_scale", format="int8_tensorwise")
    nothing = torch.zeros(29, dtype=torch.uint8) if content == "nul" else marker()
    tensors["text_embedding.0.comfy_quant"] = nothing
    error, _ = judge(tensors)
    assert error < BOUNDS[I8]
    target = tmp_path / "out.safetensors"
    with open_source(tmp_path / "model.safetensors") as source:
        assert not source.comfyui_reads  # ComfyUI takes the marker for broken JSON
        convert(source, plan_of(source, "blocks.* = nvfp4"), target)
    with open_source(target) as result:
        assert torch.equal(result.load("text_embedding.0.weight"), model["text_embedding.0.weight"])
        assert not any(name.endswith("comfy_quant") for name in result.tensors)


def test_nul_bytes_on_codes_do_not_make_them_weights(judge: Judge, model: qf.Tensors) -> None:
    tensors = coded(model, lambda w: per_row(w, I8), "weight_scale", format="int8_tensorwise")
    tensors["blocks.0.ffn.0.comfy_quant"] = torch.zeros(29, dtype=torch.uint8)
    with pytest.raises(SourceError, match=r"blocks\.0\.ffn\.0\.weight"):
        judge(tensors)


def test_int8_blocks_per_row_are_kept(tmp_path: Path, model: qf.Tensors) -> None:
    """Codes that a format of ours stores alike are taken over bit for bit."""
    tensors = coded(model, lambda w: per_row(w, I8), "weight_scale", format="int8_blockwise")
    path, target = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    with open_source(path) as source:
        report = convert(source, plan_of(source, "blocks.* = int8_rowwise"), target)
    taken = [layer for layer in report.layers if layer.format == "int8_rowwise"]
    assert taken and all(layer.rounding == "source" for layer in taken)
