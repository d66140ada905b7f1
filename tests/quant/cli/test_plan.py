"""``nvfp4 plan``: the formats and sizes before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from safetensors.torch import load_file

from tests.helpers.command_line import run, run_json

TINY = str(MODEL_PATH)
MIXED = ("--preset", "wan2.2-14b", "--setting", "edge_blocks=1")
ALL = ("--preset", "all", "--rounding", "max")
Q = "blocks.1.self_attn.q"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def scales(tmp_path: Path) -> Path:
    path = tmp_path / "scales.json"
    path.write_text(json.dumps({Q: 0.5}))
    return path


def test_plan_json(capsys: Capture) -> None:
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


def test_any_architecture(capsys: Capture) -> None:
    code, plan = run_json(capsys, "plan", TINY, "--preset", "wan2.2-ti2v-5b", "--any-architecture")
    assert code == 0 and plan["architecture"]["id"] == "wan-t2v"


def test_auto_preset_picks_by_model(capsys: Capture) -> None:
    assert run_json(capsys, "plan", TINY, "--preset", "auto")[1]["recipe"]["name"] == "wan2.2-14b"


def test_a_plan_says_what_is_wrong_with_a_file_of_scales(scales: Path, capsys: Capture) -> None:
    """A dry run finds what would stop the conversion."""
    by_file = ("--input-scale", f"file={scales}")
    assert run(capsys, "plan", MODEL_PATH, *ALL, *by_file)[0] == 0
    scales.write_text(json.dumps({"blocks.1.self_atn.q": 0.5}))
    code, _, error = run(capsys, "plan", MODEL_PATH, *ALL, *by_file)
    assert code == 1 and Q in error
    scales.unlink()
    assert run(capsys, "plan", MODEL_PATH, *ALL, *by_file)[0] == 1


def test_names_of_another_model_are_an_error(tmp_path: Path, capsys: Capture) -> None:
    mine = tmp_path / "mine.json"
    rule = {"pattern": ["blocks.0.ffn.0", "blocks.0.ffn.1"], "format": "nvfp4"}
    mine.write_text(json.dumps({"$schema": "recipe.schema.json", "rules": [rule]}))
    code, _, error = run(capsys, "plan", MODEL_PATH, "--recipe", mine)
    assert code == 1 and "blocks.0.ffn.1; the nearest names are blocks.0.ffn.2" in error
