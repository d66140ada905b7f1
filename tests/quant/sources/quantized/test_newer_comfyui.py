"""Formats of newer ComfyUIs as sources: ``asym_w4a8_int8`` and ``awq_w4a16``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint
from nvfp4_foundry.quant.errors import CheckpointError
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.rounding import MaxRule
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import run, run_json

LAYER = "blocks.1.ffn.0"
SHAPE = (512, 256)
Save = Callable[[Mapping[str, torch.Tensor], Mapping[str, Any]], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """A function that saves the demo model with other tensors and a marker for one layer."""

    def write(parts: Mapping[str, torch.Tensor], marker: Mapping[str, Any]) -> Path:
        tensors = load_file(MODEL_PATH)
        del tensors[f"{LAYER}.weight"]
        tensors |= {f"{LAYER}.{suffix}": part.contiguous() for suffix, part in parts.items()}
        marked = torch.tensor(list(json.dumps(marker).encode()), dtype=torch.uint8)
        path = tmp_path / "model.safetensors"
        save_file({**tensors, f"{LAYER}.comfy_quant": marked}, path)
        return path

    return write


def awq_parts(group: int = 64, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    codes = torch.randint(0, 16, SHAPE, dtype=torch.uint8)
    groups = (SHAPE[1] // group, SHAPE[0])
    return {
        "weight": (codes[:, 0::2] | (codes[:, 1::2] << 4)).view(torch.int8),
        "weight_scale": (torch.rand(groups) * 0.01 + 0.001).to(dtype),
        "weight_zero": (torch.randn(groups) * 0.01).to(dtype),
    }


def loaded(path: Path) -> torch.Tensor:
    with open_source(path) as source:
        assert any("quantized already" in note for note in source.notes)
        return source.load(f"{LAYER}.weight")


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("called", ["weight_zero", "weight_zeros"])
def test_awq_decodes_bit_for_bit_as_comfy_kitchen(save: Save, group: int, called: str) -> None:
    layouts = pytest.importorskip("comfy_kitchen.tensor.awq_w4a16", exc_type=ImportError)
    layout = layouts.TensorCoreAWQW4A16Layout
    parts = awq_parts(group)
    params = layout.Params(
        scale=parts["weight_scale"],
        zeros=parts["weight_zero"],
        orig_dtype=torch.float32,
        orig_shape=SHAPE,
        group_size=group,
    )
    wanted = layout.dequantize(parts["weight"], params)
    parts[called] = parts.pop("weight_zero")
    path = save(parts, {"format": "awq_w4a16", "group_size": group})
    assert torch.equal(loaded(path), wanted)


def test_awq_is_read_and_converted_but_not_written(
    save: Save, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    parts = awq_parts(dtype=torch.bfloat16)
    path, target = save(parts, {"format": "awq_w4a16"}), tmp_path / "out.safetensors"
    wanted = loaded(path)
    assert {la.name: la.format for la in inspect_checkpoint(path).layers}[LAYER] == "awq_w4a16"
    rules = ("--preset", "all", "--set", f"{LAYER}=int8_rowwise")
    code, report = run_json(capsys, "quantize", path, target, *rules)
    assert code == 0 and any("awq_w4a16" in note for note in report["notes"])
    with open_source(target) as source:
        found = source.load(f"{LAYER}.weight")
    assert float((found - wanted).norm() / wanted.norm()) < 0.01


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight_zero": None}, "weight_zero is missing"),
        ({"weight_scale": torch.ones(2, 512)}, r"weight_scale has the shape \(2, 512\)"),
        ({"weight": torch.zeros(512, 256)}, "not packed bytes"),
    ],
)
def test_damaged_awq_is_refused_by_name(save: Save, change: dict[str, Any], said: str) -> None:
    parts = {k: v for k, v in {**awq_parts(), **change}.items() if v is not None}
    with pytest.raises(CheckpointError, match=f"{LAYER}.*{said}"):
        open_source(save(parts, {"format": "awq_w4a16"})).close()


def test_asym_is_decoded_and_kept(
    save: Save, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fmt = get_format("asym_w4a8_int8")
    parts = dict(fmt.encode(torch.randn(SHAPE), MaxRule()).tensors)
    path, target = save(parts, dict(fmt.marker or {})), tmp_path / "out.safetensors"
    assert torch.equal(loaded(path), fmt.decode(parts, SHAPE))
    options = ("--preset", "all", "--set", f"{LAYER}=keep")
    code, out, err = run(capsys, "quantize", path, target, *options)
    assert code == 1 and "ComfyUI 0.33" in out + err
    code, report = run_json(capsys, "quantize", path, target, *options, "--comfyui", "0.33")
    assert code == 0 and report["needs_comfyui"] == "0.33"
    kept = load_file(target)
    for suffix, part in parts.items():
        stored = kept[f"{LAYER}.{suffix}"].view(torch.uint8)
        assert torch.equal(stored, part.contiguous().view(torch.uint8)), suffix
    assert run(capsys, "verify", target, "--source", path)[0] == 0


@pytest.mark.parametrize("extra", ["correction", "no codebook"])
def test_variants_of_asym_are_decoded_but_not_kept(
    save: Save, capsys: pytest.CaptureFixture[str], tmp_path: Path, extra: str
) -> None:
    """Only newer ComfyUIs add constants to blocks; both come out as the codes that are written."""
    fmt = get_format("asym_w4a8_int8")
    parts = dict(fmt.encode(torch.randn(SHAPE), MaxRule()).tensors)
    if extra == "correction":
        parts["weight_correction"] = torch.randn(SHAPE[1] // 16, SHAPE[0]) * 0.1
    else:
        del parts["weight_codebook"]
    variant = fmt.of_marker(fmt.marker or {}, {k: tuple(v.shape) for k, v in parts.items()})
    assert variant is not None
    path, target = save(parts, dict(fmt.marker or {})), tmp_path / "out.safetensors"
    wanted = variant.decode(parts, SHAPE)
    assert torch.equal(loaded(path), wanted)
    options = ("--preset", "all", "--set", f"{LAYER}=asym_w4a8_int8", "--comfyui", "0.33")
    code, report = run_json(capsys, "quantize", path, target, *options)
    assert code == 0
    layer = next(la for la in report["layers"] if la["name"] == LAYER)
    assert layer["rounding"] != "source" and 0 < layer["weight_error"] < 0.1
    with open_source(target) as source:
        found = source.load(f"{LAYER}.weight")
    assert float((found - wanted).norm() / wanted.norm()) < 0.1
    assert run(capsys, "verify", target, "--source", path)[0] == 0


def test_six_bit_codes_of_the_newest_comfy_kitchen_are_refused(save: Save) -> None:
    """Its rows are half as wide again, so the scales do not fit."""
    fmt = get_format("asym_w4a8_int8")
    parts = dict(fmt.encode(torch.randn(SHAPE), MaxRule()).tensors)
    parts["weight"] = torch.zeros(SHAPE[0], SHAPE[1] * 6 // 8, dtype=torch.int8)
    with pytest.raises(CheckpointError, match=f"{LAYER}.*weight_s_rel"):
        open_source(save(parts, dict(fmt.marker or {}))).close()
