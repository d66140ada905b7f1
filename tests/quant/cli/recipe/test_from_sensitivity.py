"""``nvfp4 recipe from-sensitivity``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH

from tests.helpers.command_line import run, run_json

Capture = pytest.CaptureFixture[str]


def sensitivity_file(path: Path) -> Path:
    """A sensitivity in which only ``blocks.1`` is known, and half of that is bad in NVFP4."""
    names = [f"blocks.{i}.ffn.{j}" for i in range(4) for j in (0, 2)]
    names += [f"blocks.{i}.self_attn.{j}" for i in range(4) for j in "qkvo"]

    def errors(name: str, error: float) -> dict[str, object]:
        known = error if name.startswith("blocks.1.") else None
        return {"weight": None, "w4a16": None, "w4a4": known, "latent_by_sigma": []}

    layers = [
        {"name": name, "shape": [512, 512], "input_id": None,
         "candidates": {"nvfp4": errors(name, 0.06 if "ffn" in name else 0.1),
                        "float8_e4m3fn": errors(name, 0.02)}}
        for name in names
    ]  # fmt: skip
    data = {"kind": "nvfp4_foundry.sensitivity", "version": 1, "rounding": "weighted",
            "fingerprint": {"shapes": {}, "probe": {}}, "layers": layers}  # fmt: skip
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("limit", ["7%", "0.07"])
def test_from_a_sensitivity(limit: str, tmp_path: Path, capsys: Capture) -> None:
    options = (sensitivity_file(tmp_path / "s.json"), "--preset", "all")
    code, recipe = run_json(capsys, "recipe", "from-sensitivity", *options, "--max-error", limit)
    assert code == 0
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(recipe))
    _, plan = run_json(capsys, "plan", MODEL_PATH, "--recipe", mine)
    formats = {la["name"]: la["format"] for la in plan["layers"]}
    assert formats["blocks.1.ffn.2"] == "nvfp4"
    assert formats["blocks.1.self_attn.q"] == "float8_e4m3fn"
    assert formats["blocks.0.ffn.0"] == "keep"  # unknown
    assert formats["blocks.0.cross_attn.q"] == "nvfp4"  # not in the sensitivity: the preset's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("FILE", "--max-error", "much"), "not of the form 8%"),
        (("FILE", "--max-error", "8"), "between 0 and 1"),
        (("FILE", "--formats", "bf16"), "was not measured"),
        (("FILE", "--preset", "auto"), "needs a model"),
        (("FILE", "--set", "oops"), "pattern = format"),
        (("FILE", "--output", "FILE", "--overwrite"), "is one of the input files"),
        (("FILE", "--preset", "all", "--recipe", "mine.json"), "it can be given only once"),
        (("FILE", "--max-spread", "2"), "unrecognized arguments: --max-spread 2"),
        (("FILE", "--bits-limit", "4"), "unrecognized arguments: --bits-limit 4"),
        (("--preset", "all"), "the following arguments are required: FILE"),
    ],
)
def test_bad_usage(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: Capture
) -> None:
    file = sensitivity_file(tmp_path / "s.json")
    given = [file if argument == "FILE" else argument for argument in arguments]
    code, _, error = run(capsys, "recipe", "from-sensitivity", *given)
    assert code == 2 and message in error
