"""The command line's contract: options, JSON shapes, exit codes, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    load_statistics,
    save_statistics,
)
from nvfp4_foundry.quant.cli import main
from nvfp4_foundry.quant.sources import open_source
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import run, run_json

COMMANDS = (
    "inspect", "plan", "quantize", "verify", "compare", "stats", "sensitivity", "mix", "recipe",
    "rescale", "doctor", "demo",
)  # fmt: skip
TINY = str(MODEL_PATH)
MIXED = ("--preset", "wan2.2-14b", "--setting", "edge_blocks=1")


@pytest.fixture
def quantized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    target = tmp_path / "out.safetensors"
    assert run(capsys, "quantize", TINY, target, *MIXED)[0] == 0
    return target


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    """Statistics of the tiny model with a known amax of 3.5 in every layer."""
    with open_source(TINY) as source:
        root = torch.nn.Module()
        for name, info in source.tensors.items():
            if name.endswith(".weight") and len(info.shape) == 2:
                module = root
                *parents, leaf = name.removesuffix(".weight").split(".")
                for part in parents:
                    if not hasattr(module, part):
                        module.add_module(part, torch.nn.Module())
                    module = getattr(module, part)
                module.add_module(leaf, torch.nn.Linear(info.shape[1], info.shape[0], bias=False))
        collector = ActivationCollector()
        collector.new_run("known amax")
        with collector.observe(root):
            collector.begin_call(0.5, [0])
            for module in root.modules():
                if isinstance(module, torch.nn.Linear):
                    inputs = torch.rand(1, 8, module.in_features)
                    inputs[0, 3, 5] = -3.5
                    module(inputs)
        path = tmp_path / "stats.safetensors"
        save_statistics(collector.snapshot(source.fingerprint()), path)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_every_command_takes_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"nvfp4 {command}" in text.split("\nexample")[1]
    assert "--json" in text


def test_plan_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, plan = run_json(capsys, "plan", TINY, *MIXED)
    assert code == 0
    first = plan["layers"][0]
    assert {"name", "format", "reason", "bytes_before", "bytes_after"} <= set(first)
    formats = {layer["name"]: layer["format"] for layer in plan["layers"]}
    assert formats["blocks.1.self_attn.q"] == "nvfp4"
    assert formats["blocks.0.self_attn.q"] == "float8_e4m3fn"
    assert formats["head.head"] == "keep"
    assert sum(la["bytes_before"] for la in plan["layers"]) == sum(
        t.nbytes for t in load_file(TINY).values()
    )


def test_quantize_inspect_verify(quantized: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, summary = run_json(capsys, "inspect", quantized)
    assert code == 0
    assert {"name", "kind", "shape", "format", "bytes"} <= set(summary["layers"][0])
    assert summary["total_bytes"] == sum(t.nbytes for t in load_file(quantized).values())
    assert summary["formats"] == {"float8_e4m3fn": 26, "nvfp4": 14, "bf16": 6}
    code, result = run_json(capsys, "verify", quantized, "--source", TINY)
    assert (code, result["ok"], result["problems"]) == (0, True, [])


def test_planned_size_is_what_is_written(
    tmp_path: Path, statistics: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, plan = run_json(capsys, "plan", TINY, *MIXED)
    target = tmp_path / "out.safetensors"
    code, report = run_json(capsys, "quantize", TINY, target, *MIXED, "--stats", statistics)
    assert code == 0
    written = sum(t.nbytes for t in load_file(target).values())
    assert plan["bytes_after"] == report["bytes_after"] == written


def test_verify_fails_on_a_damaged_file(
    quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(quantized)
    tensors["blocks.1.self_attn.q.weight"][:64] = 0x77
    with safe_open(quantized, "pt") as file:
        metadata = file.metadata()
    save_file(tensors, quantized, metadata)
    code, result = run_json(capsys, "verify", quantized, "--source", TINY)
    assert code == 1 and not result["ok"]
    assert all("blocks.1.self_attn.q" in problem for problem in result["problems"])


@pytest.mark.parametrize(
    ("options", "nvfp4", "float8"),
    [
        ((), 3.5 * 4 / 2688, 3.5 * 4 / 448),
        (("--headroom", "2"), 3.5 * 2 / 2688, 3.5 * 2 / 448),
        (("--input-scale", "p99.9", "--headroom", "1.5"), 3.5 * 1.5 / 2688, 3.5 * 1.5 / 448),
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
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "out.safetensors"
    code, *_ = run(capsys, "quantize", TINY, target, *MIXED, "--stats", statistics, *options)
    assert code == 0
    tensors = load_file(target)
    for layer, expected in (("blocks.1.self_attn.q", nvfp4), ("blocks.0.ffn.0", float8)):
        scale = tensors.get(f"{layer}.input_scale")
        if expected is None:
            assert scale is None
        else:
            assert scale is not None and scale.dtype == torch.float32 and scale.shape == ()
            assert float(scale) == pytest.approx(expected, rel=1e-6)


def test_rules_win_over_the_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_an_existing_target_is_kept_unless_told(
    quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = quantized.read_bytes()
    code, _, error = run(capsys, "quantize", TINY, quantized, "--preset", "all")
    assert code == 1 and str(quantized) in error and "--overwrite" in error
    assert quantized.read_bytes() == before
    assert run(capsys, "quantize", TINY, quantized, "--preset", "all", "--overwrite")[0] == 0
    assert quantized.read_bytes() != before


def test_the_source_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.safetensors"
    source.write_bytes(MODEL_PATH.read_bytes())
    code, _, error = run(capsys, "quantize", source, source, "--preset", "all", "--overwrite")
    assert code == 2 and "is what is read here" in error
    assert source.read_bytes() == MODEL_PATH.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "nope"), "wan2.2-14b"),
        ((), "--preset"),
        (("--preset", "all", "--set", "blocks nvfp4"), "pattern = format"),
        (("--preset", "all", "--set", "blocks.*=int3"), "nvfp4_w4a16"),
        (("--preset", "all", "--setting", "edge=1"), "no setting"),
        (("--preset", "all", "--rounding", "magic"), "max"),
        (("--preset", "all", "--input-scale", "loud"), "dynamic"),
        (("--preset", "all", "--headroom", "0.1"), "headroom"),
    ],
)
def test_bad_usage_is_2_and_says_what_is_allowed(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, error = run(
        capsys, "quantize", TINY, tmp_path / "o.safetensors", *arguments, "--json"
    )
    assert code == 2 and message in error and message in json.loads(out)["error"]
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "missing.safetensors", "--preset", "all"), "missing.safetensors does not exist"),
        (("plan", TINY, "--preset", "wan2.2-ti2v-5b"), "WAN T2V"),
        (("plan", TINY, "--preset", "all", "--set", "blocks.0.ffn.9=bf16"), "blocks.0.ffn.0"),
        (("inspect", "missing.safetensors"), "does not exist"),
        (("stats", TINY), "statistics"),
        (("quantize", TINY, "no-such-folder/o.safetensors", "--preset", "all"), "no-such-folder"),
    ],
)
def test_failures_are_1_and_name_the_culprit(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, *arguments)
    assert code == 1 and message in error
    assert "Traceback" not in error


def test_unknown_commands_and_options_are_2() -> None:
    for arguments in (["frobnicate"], ["plan"], ["plan", TINY, "--nope"], []):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_any_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    code, plan = run_json(capsys, "plan", TINY, "--preset", "wan2.2-ti2v-5b", "--any-architecture")
    assert code == 0 and plan["architecture"]["id"] == "wan-t2v"


def test_auto_preset_picks_by_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, "plan", TINY, "--preset", "auto")[1]["recipe"]["name"] == "wan2.2-14b"


def test_recipes_list_save_and_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, listed = run_json(capsys, "recipe")
    assert code == 0 and {"smart", "all"} <= {p["name"] for p in listed["presets"]}
    path = tmp_path / "mine.json"
    code, *_ = run(capsys, "recipe", *MIXED, "--set", "*.ffn.0=bf16", "--output", path)
    assert code == 0
    _, from_file = run_json(capsys, "plan", TINY, "--recipe", path)
    _, from_preset = run_json(capsys, "plan", TINY, *MIXED, "--set", "*.ffn.0=bf16")
    assert from_file["layers"] == from_preset["layers"]
    assert run(capsys, "recipe", "--preset", "all", "--output", path)[0] == 1  # it exists


def test_stats_show_and_merge(
    tmp_path: Path, statistics: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, summary = run_json(capsys, "stats", statistics)
    assert code == 0 and summary["layers"]["blocks.0.ffn.0"]["amax"] == 3.5
    twice = tmp_path / "twice.safetensors"
    code, _, error = run(capsys, "stats", statistics, statistics, "--merge", twice)
    assert code == 1 and "run" in error and not twice.exists()
    assert run(capsys, "stats", statistics, "--merge", twice)[0] == 0
    assert len(load_statistics(twice).runs) == 1
    assert run(capsys, "stats", statistics, "--merge", twice)[0] == 1


@pytest.mark.parametrize("suffix", ["html", "json", "txt"])
def test_report_files(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / f"report.{suffix}"
    target = tmp_path / "o.safetensors"
    assert run(capsys, "quantize", TINY, target, "--preset", "all", "--report", report)[0] == 0
    assert "blocks.2.cross_attn.k" in report.read_text(encoding="utf-8")
    assert run(capsys, "quantize", TINY, target, "--preset", "all", "--report", "r.pdf")[0] == 2


def test_a_report_never_replaces_what_it_should_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
        assert code in (1, 2) and "source" in error
    assert "weight_map" in index.read_text()
    assert run(capsys, "inspect", shards / "m.safetensors")[0] == 0


def test_the_calibration_is_never_the_target(
    statistics: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--preset", "all", "--stats", statistics, "--overwrite")
    assert run(capsys, "quantize", TINY, statistics, *options)[0] == 2
    assert load_statistics(statistics).runs


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, machine = run_json(capsys, "doctor")
    assert code == 0
    assert machine["torch"] == torch.__version__
    assert machine["backends"]["eager"] == "available"
    assert machine["advice"]


def test_runs_as_a_program_and_is_quiet_without_a_terminal(tmp_path: Path) -> None:
    target = tmp_path / "o.safetensors"
    done = subprocess.run(
        [sys.executable, "-m", "nvfp4_foundry.quant.cli", "quantize", TINY, target, *MIXED],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "26 float8_e4m3fn, 14 nvfp4" in done.stdout
