"""``nvfp4 rescale``: what it takes, shows and leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from safetensors.torch import load_file

from tests.helpers.command_line import run, run_json

Q = "blocks.1.self_attn.q"


@pytest.fixture
def checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "q.safetensors"
    options = ("--preset", "all", "--rounding", "max", "--input-scale", "fixed=0.5")
    assert run(capsys, "quantize", MODEL_PATH, path, *options)[0] == 0
    return path


def test_a_dry_run_shows_and_in_place_does(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = checkpoint.read_bytes()
    change = ("rescale", checkpoint, "--input-scale", "fixed=0.25")
    code, out, _ = run(capsys, *change, "--dry-run")
    assert code == 0 and "40 changed" in out and "x 0.5" in out and "nothing was written" in out
    assert checkpoint.read_bytes() == before
    code, report = run_json(capsys, *change, "--in-place")
    assert code == 0
    layer = next(la for la in report["layers"] if la["name"] == Q)
    assert (layer["before"], layer["after"], layer["change"]) == (0.5, 0.25, 0.5)
    assert float(load_file(checkpoint)[f"{Q}.input_scale"]) == 0.25
    assert run_json(capsys, "verify", checkpoint, "--source", MODEL_PATH)[1]["problems"] == []


def test_scales_are_removed_in_a_new_file(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = checkpoint.with_name("dynamic.safetensors")
    change = ("rescale", checkpoint, "--input-scale", "dynamic", "--output", target)
    code, out, _ = run(capsys, *change)
    assert code == 0 and "40 removed" in out and f"wrote {target}" in out
    assert f"{Q}.input_scale" not in load_file(target)
    assert run(capsys, *change)[0] == 1
    assert run(capsys, *change, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--in-place",), "give --calibration FILE, or --input-scale dynamic"),
        (("--in-place", "--input-scale", "loud"), "known: amax"),
        (("--input-scale", "dynamic", "--output", "SAME", "--overwrite"), "one of the input files"),
    ],
)
def test_bad_usage(
    arguments: tuple[str, ...],
    message: str,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = checkpoint.read_bytes()
    given = [checkpoint if argument == "SAME" else argument for argument in arguments]
    code, _, error = run(capsys, "rescale", checkpoint, *given)
    assert code == 2 and message in error and checkpoint.read_bytes() == before


def test_a_file_on_the_hub_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--input-scale", "dynamic", "--in-place")
    code, _, error = run(capsys, "rescale", "hf://o/r/a.safetensors", *options)
    assert code == 2 and "use --output" in error
