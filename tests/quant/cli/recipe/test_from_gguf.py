"""``nvfp4 recipe from-gguf``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.command_line import run, run_json


def test_a_recipe_from_a_gguf(
    wan_gguf: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, original = wan_gguf
    mine = tmp_path / "mine.json"
    options = ("--higher", "bf16", "--for", original, "--set", "blocks.0.ffn.0 = fp32")
    code, _, error = run(capsys, "recipe", "from-gguf", source, *options, "--output", mine)
    assert (code, error) == (0, "")
    code, plan = run_json(capsys, "plan", original, "--recipe", mine)
    formats = {layer["name"]: layer["format"] for layer in plan["layers"]}
    assert formats["blocks.0.ffn.0"] == "fp32" and formats["blocks.1.ffn.0"] == "nvfp4"
    assert formats["blocks.1.self_attn.v"] == "bf16" and formats["head.head"] == "fp16"
    assert "Q8_0 in the GGUF" in json.dumps(plan)


def test_bad_usage_of_recipes_from_a_gguf(
    wan_gguf: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = wan_gguf
    for arguments in (
        (source, "--preset", "smart"),
        (source, "--bits-limit", 0),
        (source, "--higher", "fp5"),
        (source, "--setting", "edge_blocks=2"),
        ("--for", source),
    ):
        assert run(capsys, "recipe", "from-gguf", *arguments)[0] == 2, arguments
    assert run(capsys, "recipe", "from-gguf", "absent.gguf")[0] == 1
