"""``--gpu``: the formats a GPU multiplies natively, through every command that takes a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint
from nvfp4_foundry.quant.hardware import machine as hardware
from nvfp4_foundry.quant.hardware.support import Gpu

from tests.helpers.command_line import run, run_json
from tests.helpers.made_up_sensitivity import save_made_up

TINY = str(MODEL_PATH)
SHOWN = ("wan2.2-14b", "--set", "edge_blocks=1")
PRESET = ("--preset", *SHOWN)
AMPERE = {"int8_convrot": 26, "convrot_w4a4": 14}


def formats(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, int]:
    code, plan = run_json(capsys, "plan", TINY, *PRESET, *options)
    assert code == 0
    found = [la["format"] for la in plan["layers"] if la["kind"] == "linear"]
    return {name: found.count(name) for name in sorted(set(found) - {"keep"})}


def test_each_generation_gets_its_formats(capsys: pytest.CaptureFixture[str]) -> None:
    as_written = {"float8_e4m3fn": 26, "nvfp4": 14}
    assert formats(capsys) == formats(capsys, "--gpu", "blackwell") == as_written
    assert formats(capsys, "--gpu", "ada") == {"float8_e4m3fn": 40}
    assert formats(capsys, "--gpu", "hopper") == {"float8_e4m3fn": 40}
    assert formats(capsys, "--gpu", "ampere") == formats(capsys, "--gpu", "turing") == AMPERE


def test_auto_is_this_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for capability, wanted in (((8, 6), AMPERE), ((8, 9), {"float8_e4m3fn": 40})):
        gpus = (Gpu("made up", capability, 8 << 30),)
        monkeypatch.setattr(hardware, "_gpus", lambda gpus=gpus: gpus)
        assert formats(capsys, "--gpu", "auto") == wanted
    monkeypatch.setattr(hardware, "_gpus", lambda: ())
    assert formats(capsys, "--gpu", "auto") == formats(capsys)


def test_the_users_rules_win(capsys: pytest.CaptureFixture[str]) -> None:
    found = formats(capsys, "--gpu", "ampere", "--set", "blocks.*.ffn.0 = nvfp4")
    assert found["nvfp4"] == 4 and "convrot_w4a4" in found


def test_a_file_for_ampere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "ampere.safetensors"
    code, report = run_json(capsys, "quantize", TINY, target, *PRESET, "--gpu", "ampere")
    assert code == 0
    assert report["recipe"] == "wan2.2-14b, for Ampere"
    assert run(capsys, "verify", target, "--source", TINY)[0] == 0
    found = inspect_checkpoint(target).counts()
    assert {name: found[name] for name in AMPERE} == AMPERE


def test_a_saved_recipe_can_be_for_another_gpu(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / "recipe.json"
    assert run(capsys, "recipe", "show", *SHOWN, "--gpu", "ampere", "--output", saved)[0] == 0
    rules = json.loads(saved.read_text())["rules"]
    assert ("convrot_w4a4", "int8_convrot") in {(r["format"], r["fallback"]) for r in rules}
    code, recipe = run_json(capsys, "recipe", "show", saved, "--gpu", "blackwell")
    assert code == 0 and "nvfp4" in {rule["format"] for rule in recipe["rules"]}


def test_gpu_alone_is_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "plan", TINY, "--gpu", "ampere")[0] == 2


def test_mixes_of_integers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Chosen for a size among the formats of Ampere, from errors made up."""
    path = save_made_up(
        tmp_path / "sensitivity.json", TINY, {"convrot_w4a4": 0.15, "int8_convrot": 0.01}
    )
    code, mix = run_json(
        capsys, "mix", TINY, "--sensitivity", path, *PRESET, "--gpu", "ampere",
        "--formats", "convrot_w4a4,int8_convrot,bf16", "--budget", "bits=5",
    )  # fmt: skip
    assert code == 0 and mix["mix"]["bits"] <= 5
    assert set(mix["mix"]["counts"]) <= {"convrot_w4a4", "int8_convrot", "bf16"}
    assert len(mix["mix"]["counts"]) > 1
