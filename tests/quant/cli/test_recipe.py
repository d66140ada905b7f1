"""``nvfp4 recipe``: recipes from elsewhere, edited, saved, planned with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.planning import load_recipe
from nvfp4_foundry.quant.planning.recipe_schema import SCHEMA_PATH
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import run, run_json

MIXED = ("--preset", "wan2.2-14b", "--setting", "edge_blocks=1")


@pytest.fixture
def checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A checkpoint with a prefix, as in a full checkpoint."""
    path = tmp_path / "theirs.safetensors"
    assert run(capsys, "quantize", MODEL_PATH, path, *MIXED, "--rounding", "max")[0] == 0
    prefixed = {f"model.diffusion_model.{n}": t for n, t in load_file(path).items()}
    save_file(prefixed, path)
    return path


def test_from_a_checkpoint_and_edited(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.json"
    edit = ("--set", "*.ffn.0=bf16", "--rounding", "mse")
    made = ("recipe", "--from-checkpoint", checkpoint, *edit, "--output", mine)
    code, _, notes = run(capsys, *made)
    assert code == 0 and "26 float8_e4m3fn; 14 nvfp4" in notes
    assert load_recipe(mine).rounding == "mse"
    _, plan = run_json(capsys, "plan", MODEL_PATH, "--recipe", mine)
    _, wanted = run_json(capsys, "plan", MODEL_PATH, *MIXED, "--set", "*.ffn.0=bf16")
    assert [la["format"] for la in plan["layers"]] == [la["format"] for la in wanted["layers"]]
    assert run(capsys, *made)[0] == 1  # it exists


def test_names_of_another_model_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.json"
    rule = {"pattern": ["blocks.0.ffn.0", "blocks.0.ffn.1"], "format": "nvfp4"}
    mine.write_text(json.dumps({"$schema": "recipe.schema.json", "rules": [rule]}))
    code, _, error = run(capsys, "plan", MODEL_PATH, "--recipe", mine)
    assert code == 1 and "blocks.0.ffn.1; the nearest names are blocks.0.ffn.2" in error


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "recipe", "--schema")
    assert code == 0 and out == SCHEMA_PATH.read_text(encoding="utf-8")


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
def test_from_a_sensitivity(limit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--from-sensitivity", sensitivity_file(tmp_path / "s.json"), "--preset", "all")
    code, recipe = run_json(capsys, "recipe", *options, "--max-error", limit)
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
        (("--from-checkpoint", "FILE", "--preset", "all"), "takes no preset"),
        (("--from-sensitivity", "FILE", "--max-error", "much"), "not of the form 8%"),
        (("--from-sensitivity", "FILE", "--max-error", "8"), "between 0 and 1"),
        (("--from-sensitivity", "FILE", "--formats", "bf16"), "was not measured"),
        (("--from-sensitivity", "FILE", "--preset", "auto"), "needs a model"),
        (("--from-sensitivity", "FILE", "--set", "oops"), "pattern = format"),
        (("--from-sensitivity", "FILE", "--output", "FILE", "--overwrite"), "is what is read"),
        (("--set", "a=bf16"), "give --preset, --recipe or --from-"),
        (
            ("--preset", "all", "--max-error", "8%"),
            "belongs to --from-stats and --from-sensitivity",
        ),
        (("--from-sensitivity", "FILE", "--max-spread", "2"), "belongs to --from-stats"),
        (("--from-sensitivity", "FILE", "--bits-limit", "4"), "belongs to --from-gguf"),
    ],
)
def test_bad_usage(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sensitivity_file(tmp_path / "s.json")
    given = [file if argument == "FILE" else argument for argument in arguments]
    code, _, error = run(capsys, "recipe", *given)
    assert code == 2 and message in error
