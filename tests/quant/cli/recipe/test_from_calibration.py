"""``nvfp4 recipe from-calibration``."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.planning import load_recipe

from tests.helpers.command_line import run, run_json

Capture = pytest.CaptureFixture[str]


def formats(capsys: Capture, recipe: Path) -> dict[str, str]:
    code, plan = run_json(capsys, "plan", MODEL_PATH, "--recipe", recipe)
    assert code == 0
    return {layer["name"]: layer["format"] for layer in plan["layers"]}


def test_inputs_that_lose_too_much_are_not_rounded(
    statistics: Path, tmp_path: Path, capsys: Capture
) -> None:
    mine = tmp_path / "mine.json"
    make = ("recipe", "from-calibration", statistics, "--preset", "all", "--output", mine)
    code, out, notes = run(capsys, *make, "--max-error", "99%", "--set", "*.ffn.0=bf16")
    assert code == 0 and out == f"wrote {mine}\n" and "note: " in notes
    found = formats(capsys, mine)
    assert found["blocks.1.ffn.0"] == "bf16" and found["blocks.1.self_attn.q"] == "nvfp4"
    assert load_recipe(mine).name == "all-calibrated"
    strict = ("--max-error", "0.01%", "--overwrite")
    assert run(capsys, *make, *strict)[0] == 0
    assert formats(capsys, mine)["blocks.1.self_attn.q"] == "nvfp4_w4a16"
    assert run(capsys, *make, *strict, "--other-format", "float8_e4m3fn")[0] == 0
    assert formats(capsys, mine)["blocks.1.self_attn.q"] == "float8_e4m3fn"


def test_the_base_is_smart_unless_told(statistics: Path, capsys: Capture) -> None:
    assert run_json(capsys, "recipe", "from-calibration", statistics)[1]["name"].startswith("smart")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-spread", "0.5"), "at least 1"),
        (("--other-format", "fp5"), "unknown format 'fp5'"),
        (("--preset", "auto"), "needs a model"),
        (("--formats", "nvfp4"), "unrecognized arguments: --formats nvfp4"),
    ],
)
def test_bad_usage(
    options: tuple[str, ...], message: str, statistics: Path, capsys: Capture
) -> None:
    code, _, error = run(capsys, "recipe", "from-calibration", statistics, *options)
    assert code == 2 and message in error
