"""``nvfp4 quantize`` started by ``torchrun``: said once, written once, and nothing left behind."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from safetensors.torch import save_file

from tests.helpers.command_line import run
from tests.helpers.on_ranks import torchrun

CLI = "nvfp4_foundry.quant.cli"
ALL = ("--preset", "all", "--rounding", "max")


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what was printed."""
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()


def rank_of(process: subprocess.Popen[str], number: int) -> psutil.Process:
    """Return the process of a rank."""
    children = psutil.Process(process.pid).children()
    return next(child for child in children if child.environ().get("RANK") == str(number))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that takes a few seconds with the rounding ``mse`` on one thread."""
    path = tmp_path / "model.safetensors"
    weights = {f"blocks.{i}.{p}.weight": torch.randn(1280, 1024) for i in range(16) for p in "abc"}
    save_file({name: weight.bfloat16() for name, weight in weights.items()}, path)
    return path


def test_the_result_is_told_once(tmp_path: Path) -> None:
    target, page = tmp_path / "out.safetensors", tmp_path / "report.json"
    process = torchrun(2, CLI, "quantize", MODEL_PATH, target, *ALL, "--report", page, "--json")
    out, error = finish(process)
    assert process.returncode == 0, error
    report = json.loads(out)  # one rank printed
    assert len(report["layers"]) == len(json.loads(page.read_text())["layers"]) == 72
    assert verify_checkpoint(target, MODEL_PATH).problems == ()
    assert {path.name for path in tmp_path.iterdir()} == {target.name, page.name}


def test_an_error_in_one_layer_is_told_once(model: Path, tmp_path: Path) -> None:
    weights = {f"blocks.{i}.{p}.weight": torch.randn(64, 64) for i in range(4) for p in "abc"}
    weights["blocks.1.b.weight"][3, 5] = torch.nan
    save_file(weights, model)
    process = torchrun(2, CLI, "quantize", model, tmp_path / "out.safetensors", *ALL)
    out, error = finish(process)
    assert process.returncode == 1 and out == ""
    (told,) = (line for line in error.splitlines() if line.startswith("nvfp4 quantize:"))
    assert "blocks.1.b.weight" in told and told.startswith("nvfp4 quantize: rank ")
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


def test_one_killed_rank_ends_all_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    killed = 0  # which owns the unfinished file; bench/ranks.py kills any, at any moment
    target = tmp_path / "out.safetensors"
    process = torchrun(2, CLI, "quantize", model, target, "--preset", "all", "--rounding", "mse")
    try:
        until = time.monotonic() + 60
        while not list(tmp_path.glob(".*.partial")):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.3))
        rank_of(process, killed).send_signal(signal.SIGKILL)
        began = time.monotonic()
        _, error = finish(process)
    finally:
        process.kill()
    assert time.monotonic() - began < 20
    assert process.returncode == 1
    told = [line for line in error.splitlines() if line.startswith("nvfp4 quantize:")]
    assert told == [
        f"nvfp4 quantize: rank {killed}: ended without a word: it was killed, by hand or because "
        "memory ran out; no unfinished file was left"
    ]
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


def test_other_commands_refuse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, error = run(capsys, "inspect", MODEL_PATH)
    assert code == 2 and "without torchrun" in error
    monkeypatch.setenv("RANK", "1")
    assert run(capsys, "inspect", MODEL_PATH) == (2, "", "")  # the other one says it


def test_what_killed_ranks_finished_is_not_made_again(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.safetensors"
    command = ("quantize", model, target, "--preset", "all", "--rounding", "mse", "--resume")
    process = torchrun(2, CLI, *command)
    try:
        until = time.monotonic() + 60
        while sum(path.stat().st_size > 0 for path in tmp_path.glob(".*.resumable")) < 2:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        rank_of(process, 1).send_signal(signal.SIGKILL)
        _, error = finish(process)
    finally:
        process.kill()
    assert process.returncode == 1 and not target.exists()
    assert "-1.resumable (" in error and "the same command goes on from them" in error
    code, out, error = run(capsys, *command)  # alone
    assert code == 0, error
    assert "are from an earlier run that was stopped" in out
    assert verify_checkpoint(target, model).problems == ()
    assert {path.name for path in tmp_path.iterdir()} == {target.name, model.name}


def test_out_of_reach(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    code, _, error = run(capsys, "quantize", MODEL_PATH, "out.safetensors", *ALL)
    assert code == 1 and "cannot reach the other ranks" in error and "torchrun" in error
