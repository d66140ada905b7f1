"""``nvfp4 quantize``: what is written, where, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.calibration import (
    load_statistics,
)
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import run, run_json

TINY = str(MODEL_PATH)
MIXED = ("--preset", "wan2.2-14b", "--setting", "edge_blocks=1")
ALL = ("--preset", "all", "--rounding", "max")
Capture = pytest.CaptureFixture[str]


def test_planned_size_is_what_is_written(tmp_path: Path, statistics: Path, capsys: Capture) -> None:
    _, plan = run_json(capsys, "plan", TINY, *MIXED)
    target = tmp_path / "out.safetensors"
    code, report = run_json(capsys, "quantize", TINY, target, *MIXED, "--stats", statistics)
    assert code == 0
    written = sum(t.nbytes for t in load_file(target).values())
    assert plan["bytes_after"] == report["bytes_after"] == written


@pytest.mark.parametrize(
    ("options", "nvfp4", "float8"),
    [
        ((), 3.5 * 4 / 2688, 3.5 * 4 / 448),
        (("--input-scale", "amax*2"), 3.5 * 2 / 2688, 3.5 * 2 / 448),
        (("--input-scale", "p99.9 x 1.5"), 3.5 * 1.5 / 2688, 3.5 * 1.5 / 448),
        (("--input-scale", "fixed=0.02"), 0.02, 0.02),
        (("--input-scale", "dynamic"), None, None),
    ],
)
def test_input_scale_policies(
    options: tuple[str, ...],
    nvfp4: float | None,
    float8: float | None,
    tmp_path: Path,
    statistics: Path,
    capsys: Capture,
) -> None:
    target = tmp_path / "out.safetensors"
    code, *_ = run(capsys, "quantize", TINY, target, *MIXED, "--calibration", statistics, *options)
    assert code == 0
    tensors = load_file(target)
    for layer, expected in (("blocks.1.self_attn.q", nvfp4), ("blocks.0.ffn.0", float8)):
        scale = tensors.get(f"{layer}.input_scale")
        if expected is None:
            assert scale is None
        else:
            assert scale is not None and scale.dtype == torch.float32 and scale.shape == ()
            assert float(scale) == pytest.approx(expected, rel=1e-6)


def test_rules_win_over_the_preset(tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "out.safetensors"
    code, *_ = run(
        capsys, "quantize", TINY, target, "--preset", "all", "--rounding", "max",
        "--set", "blocks.*.ffn.2=bf16", "--set", "* @ first:1 = nvfp4_w4a16",
    )  # fmt: skip
    assert code == 0
    _, summary = run_json(capsys, "inspect", target)
    formats = {layer["name"]: layer["format"] for layer in summary["layers"]}
    assert formats["blocks.0.ffn.2"] == "bf16"
    assert formats["blocks.0.ffn.0"] == "nvfp4_w4a16"
    assert formats["blocks.1.ffn.0"] == "nvfp4"


def test_an_existing_target_is_kept_unless_told(quantized: Path, capsys: Capture) -> None:
    before = quantized.read_bytes()
    code, _, error = run(capsys, "quantize", TINY, quantized, "--preset", "all")
    assert code == 1 and str(quantized) in error and "--overwrite" in error
    assert quantized.read_bytes() == before
    assert run(capsys, "quantize", TINY, quantized, "--preset", "all", "--overwrite")[0] == 0
    assert quantized.read_bytes() != before


def test_the_source_is_never_overwritten(tmp_path: Path, capsys: Capture) -> None:
    source = tmp_path / "source.safetensors"
    source.write_bytes(MODEL_PATH.read_bytes())
    code, _, error = run(capsys, "quantize", source, source, "--preset", "all", "--overwrite")
    assert code == 2 and "is one of the input files" in error
    assert source.read_bytes() == MODEL_PATH.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "nope"), "wan2.2-14b"),
        ((), "--preset"),
        (("--preset", "all", "--set", "blocks nvfp4"), "pattern = format"),
        (("--preset", "all", "--set", "blocks.*=int3"), "nvfp4_w4a16"),
        (("--preset", "all", "--setting", "edge=1"), "no setting edge; its settings are format"),
        (("--preset", "all", "--set", "edge=1"), "the settings of preset all: format"),
        (("--preset", "all", "--rounding", "magic"), "max"),
        (("--preset", "all", "--input-scale", "loud"), "dynamic"),
        (("--preset", "all", "--input-scale", "amax*0.1"), "headroom"),
        (("--preset", "all", "--headroom", "2"), "--input-scale 'amax*2'"),
    ],
)
def test_bad_usage_is_2_and_says_what_is_allowed(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    code, out, error = run(
        capsys, "quantize", TINY, tmp_path / "o.safetensors", *arguments, "--json"
    )
    assert code == 2 and message in error and message in json.loads(out)["error"]
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("suffix", ["html", "json", "txt"])
def test_report_files(suffix: str, tmp_path: Path, capsys: Capture) -> None:
    report = tmp_path / f"report.{suffix}"
    target = tmp_path / "o.safetensors"
    assert run(capsys, "quantize", TINY, target, "--preset", "all", "--report", report)[0] == 0
    assert "blocks.2.cross_attn.k" in report.read_text(encoding="utf-8")
    assert run(capsys, "quantize", TINY, target, "--preset", "all", "--report", "r.pdf")[0] == 2


def test_a_report_never_replaces_what_it_should_not(tmp_path: Path, capsys: Capture) -> None:
    target, report = tmp_path / "o.safetensors", tmp_path / "r.json"
    report.write_text("precious")
    quantize = ("quantize", TINY, target, "--preset", "all", "--rounding", "max")
    assert run(capsys, *quantize, "--report", report)[0] == 1
    assert report.read_text() == "precious" and not target.exists()
    assert run(capsys, *quantize, "--report", report, "--overwrite")[0] == 0
    assert json.loads(report.read_text())["target"] == target.name
    same = tmp_path / "same.json"
    assert run(capsys, "quantize", TINY, same, "--preset", "all", "--report", same)[0] == 2
    shards = tmp_path / "shards"
    shards.mkdir()
    save_file(load_file(TINY), shards / "m.safetensors")
    index = shards / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(load_file(TINY), "m.safetensors")}))
    for options in (("--report", index), ()):
        goal = target if options else shards / "m.safetensors"
        code, _, error = run(
            capsys, "quantize", shards, goal, "--preset", "all", "--overwrite", *options
        )
        assert code == 2 and "is one of the input files" in error
    assert "weight_map" in index.read_text()
    assert run(capsys, "inspect", shards / "m.safetensors")[0] == 0


def test_the_calibration_is_never_the_target(statistics: Path, capsys: Capture) -> None:
    options = ("--preset", "all", "--stats", statistics, "--overwrite")
    assert run(capsys, "quantize", TINY, statistics, *options)[0] == 2
    assert load_statistics(statistics).runs


def test_unknown_layers_of_a_file_are_an_error(tmp_path: Path, capsys: Capture) -> None:
    scales = tmp_path / "scales.json"
    scales.write_text(json.dumps({"blocks.0.ffn.9": 0.1}))
    out = tmp_path / "o.safetensors"
    options = ("--input-scale", f"file={scales}")
    code, _, error = run(capsys, "quantize", TINY, out, *ALL, *options)
    assert code == 1 and "nearest names are blocks.0.ffn.2" in error and not out.exists()
