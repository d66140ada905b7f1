"""Scales from files of other tools: each layout is read as its own tool reads or writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.calibration import InputScalePolicy, decide_scales, parse_policy
from nvfp4_foundry.quant.calibration.input_scale.read import read_scales
from nvfp4_foundry.quant.errors import CalibrationError
from safetensors.torch import save_file

KNOWN = ("blocks.0.q", "blocks.0.ffn.2", "blocks.1.q")
SCALES = {"blocks.0.q": 0.015, "blocks.0.ffn.2": 0.25}


def write(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "scales.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "data",
    [
        SCALES,
        {f"{name}.input_scale": scale for name, scale in SCALES.items()},
        {f"model.diffusion_model.{name}": scale for name, scale in SCALES.items()},
        {"input_scales": SCALES, "comment": "nested"},
        {**SCALES, "_nvfp4_foundry": {"format": "nvfp4", "tool": "some"}},
    ],
    ids=["layers", "tensors", "prefixed", "nested", "with origin"],
)
def test_maps_of_scales(tmp_path: Path, data: Any) -> None:
    stored = read_scales(write(tmp_path, data))
    assert not stored.observed
    amax = stored.by_model_name(KNOWN)
    assert amax == {"blocks.0.q": 0.015 * 2688, "blocks.0.ffn.2": 0.25 * 2688}


def test_a_scale_means_its_format(tmp_path: Path) -> None:
    """The same scale represents a magnitude six times as small in float8 as in NVFP4."""
    path = write(tmp_path, SCALES)
    assert read_scales(path, "float8_e4m3fn").amax["blocks.0.q"] == 0.015 * 448
    path = write(tmp_path, {**SCALES, "_nvfp4_foundry": {"format": "float8_e4m3fn"}})
    assert read_scales(path).amax["blocks.0.q"] == 0.015 * 448
    with pytest.raises(
        CalibrationError, match="nvfp4_w4a16 layers take no input_scale; choose one of nvfp4"
    ):
        read_scales(path, "nvfp4_w4a16")


def test_a_summary_is_of_ranges_that_were_seen(tmp_path: Path) -> None:
    """The layout is that of analyze_input_scale_log.py (convert_nvfp4), for a WAN 2.2 layer."""
    row = {"layer": "blocks.0.q", "count": 1280, "scale_min": 0.00036, "scale_max": 0.000683,
           "scale_p99": 0.000683, "amax_min": 0.966797, "amax_max": 1.834961}  # fmt: skip
    bare = {"layer": "blocks.1.q", "scale_max": 0.001}
    data = {"format": "nvfp4", "mode": "dynamic", "percentiles": [99.0], "layers": [row, bare]}
    path = write(tmp_path, data)
    stored = read_scales(path)
    assert stored.observed
    assert stored.amax == {"blocks.0.q": 1.834961, "blocks.1.q": 0.001 * 2688}
    decisions = decide_scales(parse_policy(f"file={path}*3"), None, KNOWN)
    assert decisions["blocks.0.q"].scale_for(2688.0) == 1.834961 * 3 / 2688
    assert "x 3" in decisions["blocks.0.q"].reason
    assert not decisions["blocks.0.ffn.2"].is_static


def test_scales_of_a_checkpoint_are_by_its_layers_formats(tmp_path: Path) -> None:
    def marker(text: str) -> torch.Tensor:
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)

    tensors = {
        "blocks.0.q.input_scale": torch.tensor(0.5),
        "blocks.0.q.comfy_quant": marker('{"format": "nvfp4"}'),
        "blocks.1.q.input_scale": torch.tensor([0.5]),
    }
    path = tmp_path / "m.safetensors"
    announced = {"layers": {"blocks.1.q": {"format": "float8_e4m3fn"}}}
    save_file(tensors, path, {"_quantization_metadata": json.dumps(announced)})
    assert read_scales(path).amax == {"blocks.0.q": 0.5 * 2688, "blocks.1.q": 0.5 * 448}
    save_file(tensors, path)
    with pytest.raises(
        CalibrationError, match=r"blocks\.1\.q\.input_scale does not belong to a layer"
    ):
        read_scales(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "does not map layers to input scales"),
        ([1], "does not map layers to input scales"),
        ({"a": "loud"}, "the input scale of a is not a number: 'loud'"),
        ({"a": True}, "is not a number"),
        ({"a": 0}, "the input scale of a is 0.0, not a positive finite number"),
        ({"a": float("inf")}, "it holds Infinity"),
        ({"layers": [{"scale_max": 1}]}, "an entry of 'layers' has no 'layer'"),
        ({"layers": [{"layer": "a", "scale_mean": 1}]}, "a has no amax_max"),
        ({"_nvfp4_foundry": {}}, "has no input scales"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        read_scales(write(tmp_path, data))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "x.safetensors").write_text("{")
    for name in ("x.json", "x.safetensors", "gone.json", "gone.safetensors"):
        with pytest.raises(CalibrationError, match=name):
            read_scales(tmp_path / name)


def test_layers_the_model_lacks_are_an_error_with_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, {"blocks.0.q": 0.1, "blocks.0.fn.2": 0.1})
    policy = InputScalePolicy("file", path=path)
    with pytest.raises(
        CalibrationError, match=r"blocks\.0\.fn\.2; the nearest names are blocks\.0"
    ):
        decide_scales(policy, None, ["blocks.0.q"], KNOWN)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("file=A.json", InputScalePolicy("file", path=Path("A.json"))),
        ("FILE = /a b/C.json * 2", InputScalePolicy("file", 2.0, path=Path("/a b/C.json"))),
        (
            "file:float8_e4m3fn=x.json",
            InputScalePolicy("file", path=Path("x.json"), format="float8_e4m3fn"),
        ),
    ],
)
def test_policies_are_read_and_written(text: str, policy: InputScalePolicy) -> None:
    assert parse_policy(text) == policy
    assert parse_policy(str(policy)) == policy
    assert parse_policy("file=x.json", headroom=2).headroom == 2


@pytest.mark.parametrize("text", ["file=", "file", "file:bf16=x.json", "file=x.json*0.5"])
def test_bad_policies_are_refused(text: str) -> None:
    with pytest.raises(CalibrationError):
        parse_policy(text)
