"""``nvfp4 recipe list``, ``show`` and ``schema``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.planning.recipe_schema import SCHEMA_PATH

from tests.helpers.command_line import run, run_json

TINY = str(MODEL_PATH)
SHOWN = ("wan2.2-14b", "--setting", "edge_blocks=1")
MIXED = ("--preset", "wan2.2-14b", "--setting", "edge_blocks=1")
Capture = pytest.CaptureFixture[str]


def test_recipes_list_save_and_load(tmp_path: Path, capsys: Capture) -> None:
    code, listed = run_json(capsys, "recipe", "list")
    assert code == 0 and {"smart", "all"} <= {p["name"] for p in listed["presets"]}
    path = tmp_path / "mine.json"
    code, *_ = run(capsys, "recipe", "show", *SHOWN, "--set", "*.ffn.0=bf16", "--output", path)
    assert code == 0
    _, from_file = run_json(capsys, "plan", TINY, "--recipe", path)
    _, from_preset = run_json(capsys, "plan", TINY, *MIXED, "--set", "*.ffn.0=bf16")
    assert from_file["layers"] == from_preset["layers"]
    assert run(capsys, "recipe", "show", "all", "--output", path)[0] == 1  # it exists


def test_the_schema_is_printed(capsys: Capture) -> None:
    code, out, _ = run(capsys, "recipe", "schema")
    assert code == 0 and out == SCHEMA_PATH.read_text(encoding="utf-8")


def test_the_schema_is_saved_where_asked(tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "schema.json"
    assert run(capsys, "recipe", "schema", "--output", target)[0] == 0
    assert json.loads(target.read_text()) == run_json(capsys, "recipe", "schema")[1]


def test_a_folder_is_not_an_output(tmp_path: Path, capsys: Capture) -> None:
    """``--overwrite`` would be no advice."""
    code, _, error = run(capsys, "recipe", "show", "all", "--output", tmp_path, "--overwrite")
    assert code == 1 and "is a folder; give a file name" in error
