"""``nvfp4 recipe from-checkpoint``."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.planning import load_recipe
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import run, run_json

MIXED = ("--preset", "wan2.2-14b", "--setting", "edge_blocks=1")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def checkpoint(tmp_path: Path, capsys: Capture) -> Path:
    """A checkpoint with a prefix, as in a full checkpoint."""
    path = tmp_path / "theirs.safetensors"
    assert run(capsys, "quantize", MODEL_PATH, path, *MIXED, "--rounding", "max")[0] == 0
    prefixed = {f"model.diffusion_model.{n}": t for n, t in load_file(path).items()}
    save_file(prefixed, path)
    return path


def test_from_a_checkpoint_and_edited(checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    mine = tmp_path / "mine.json"
    edit = ("--set", "*.ffn.0=bf16", "--rounding", "mse")
    made = ("recipe", "from-checkpoint", checkpoint, *edit, "--output", mine)
    code, _, notes = run(capsys, *made)
    assert code == 0 and "26 float8_e4m3fn; 14 nvfp4" in notes
    assert load_recipe(mine).rounding == "mse"
    _, plan = run_json(capsys, "plan", MODEL_PATH, "--recipe", mine)
    _, wanted = run_json(capsys, "plan", MODEL_PATH, *MIXED, "--set", "*.ffn.0=bf16")
    assert [la["format"] for la in plan["layers"]] == [la["format"] for la in wanted["layers"]]
    assert run(capsys, *made)[0] == 1  # it exists


def test_a_gguf_has_a_command_of_its_own(tmp_path: Path, capsys: Capture) -> None:
    code, _, error = run(capsys, "recipe", "from-checkpoint", tmp_path / "a.gguf")
    assert code == 2 and "use 'nvfp4 recipe from-gguf'" in error
    code, _, error = run(capsys, "recipe", "from-checkpoint", "a", "--preset", "all")
    assert code == 2 and "unrecognized arguments: --preset all" in error
