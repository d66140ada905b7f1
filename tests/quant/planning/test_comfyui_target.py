"""The oldest ComfyUI that must load a checkpoint, from the recipe to the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.checkpoint import inspect_checkpoint
from nvfp4_foundry.quant.errors import PlanError, RecipeError
from nvfp4_foundry.quant.hardware.comfyui import outside_of, parse_version
from nvfp4_foundry.quant.planning import (
    Recipe,
    for_gpu,
    get_preset,
    inventory_of,
    make_plan,
    take_inventory,
)
from nvfp4_foundry.quant.planning.architectures import Architecture
from nvfp4_foundry.quant.planning.loadable import needed_comfyui, target_of, version_notes
from nvfp4_foundry.quant.sources import TensorInfo, open_source

from tests.helpers.command_line import run, run_json
from tests.helpers.made_up_sensitivity import save_made_up

ASYM = "asym_w4a8_int8"
TINY = str(MODEL_PATH)
PRESET = ("--preset", "wan2.2-14b", "--set", "edge_blocks=1")
MODEL = inventory_of(
    TensorInfo(f"blocks.{n}.ffn.0.weight", (64, columns), torch.bfloat16)
    for n, columns in enumerate((512, 512, 320))
)


def recipe(comfyui: str = "") -> Recipe:
    return Recipe.model_validate({"rules": [{"format": ASYM}], "comfyui": comfyui})


def test_the_oldest_comfyui_decides_whether_the_format_is_allowed() -> None:
    plan = make_plan(recipe("0.33"), MODEL)
    assert plan.counts() == {ASYM: 2, "int8_convrot": 1} and plan.needs_comfyui == "0.33"
    for older in ("", "0.29", "0.32.4"):
        with pytest.raises(PlanError, match=r"blocks\.0\.ffn\.0, blocks\.1") as caught:
            make_plan(recipe(older), MODEL)
        remedy = caught.value.remedy
        assert remedy is not None and (remedy.setting, remedy.value) == ("comfyui", "0.33")
        assert "--comfyui 0.33" in str(caught.value)


def test_a_model_of_a_newer_comfyui_sets_the_oldest_one() -> None:
    newer = Architecture("krea2", "Krea 2", since="0.33")
    assert target_of(Recipe(), newer) == (0, 33)
    assert target_of(Recipe(comfyui="0.40.1"), newer) == (0, 40, 1)
    assert needed_comfyui(["nvfp4"], newer) == "0.33" and not needed_comfyui(["nvfp4"])
    assert version_notes(["nvfp4"], newer) == ("needs ComfyUI 0.33 or newer: the model is Krea 2",)


@pytest.mark.parametrize("wrong", ["0.28", "new", "0"])
def test_a_version_must_be_one_that_is_supported(wrong: str) -> None:
    with pytest.raises(RecipeError, match=r"0\.29|0\.33"):
        Recipe().for_comfyui(wrong)
    assert Recipe().for_comfyui(None) == Recipe() == Recipe().for_comfyui("")


@pytest.mark.parametrize(
    ("generation", "four_bits", "eight_bits"),
    [
        ("blackwell", "nvfp4", "float8_e4m3fn"),
        ("ada_hopper", ASYM, "float8_e4m3fn"),
        ("ampere", ASYM, "int8_convrot"),
        ("turing_ampere", "convrot_w4a4", "int8_convrot"),
    ],
)
def test_gpus_get_the_format_where_it_can_be_loaded(
    generation: str, four_bits: str, eight_bits: str
) -> None:
    preset = get_preset("wan2.2-14b").build()
    newer = for_gpu(preset.for_comfyui("0.33"), generation)  # type: ignore[arg-type]
    assert {four_bits, eight_bits} <= set(newer.formats())
    older = for_gpu(preset, generation)  # type: ignore[arg-type]
    assert ASYM not in older.formats()


def test_turing_does_not_multiply_it() -> None:
    assert for_gpu(recipe("0.33"), "turing_ampere").rules[0].format == "convrot_w4a8"


def test_an_automatic_recipe_is_adapted_once_the_model_is_known() -> None:
    with open_source(MODEL_PATH) as source:
        model = take_inventory(source)
    automatic = Recipe(auto=True, gpu="ampere")
    assert ASYM not in make_plan(automatic, model).counts()
    newer = make_plan(automatic.for_comfyui("0.33"), model)
    assert ASYM in newer.recipe.formats() and "convrot_w4a4" not in newer.recipe.formats()


def test_every_report_and_the_header_name_the_version(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = (*PRESET, "--gpu", "ampere", "--comfyui", "0.33")
    note = "needs ComfyUI 0.33 or newer: 14 layers are asym_w4a8_int8"
    assert note in run(capsys, "plan", TINY, *options)[1]
    target, card = tmp_path / "asym.safetensors", tmp_path / "card.md"
    page = tmp_path / "report.html"
    code, report = run_json(capsys, "quantize", TINY, target, *options, "--report", page)
    assert code == 0 and report["needs_comfyui"] == "0.33" and note in report["notes"]
    assert note in page.read_text()
    summary = inspect_checkpoint(target)
    assert summary.provenance["needs_comfyui"] == summary.needs_comfyui == "0.33"
    assert summary.counts()[ASYM] == 14 and note in summary.notes
    assert note in run(capsys, "inspect", target)[1]
    assert run(capsys, "verify", target, "--source", TINY)[0] == 0
    assert run(capsys, "report", target, "--card", card)[0] == 0
    assert "ComfyUI 0.33 or newer" in card.read_text().replace("\\", "")
    assert "Ampere (RTX 30) | native" in card.read_text().replace("\\", "")


def test_the_default_target_is_the_oldest_and_is_checked_before_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "asym.safetensors"
    rule = ("--set", f"blocks.1.ffn.0 = {ASYM}")
    code, out, err = run(capsys, "quantize", TINY, target, *PRESET, *rule)
    assert code == 1 and "--comfyui 0.33" in out + err and not target.exists()
    code, *_ = run(capsys, "quantize", TINY, target, *PRESET, *rule, "--comfyui", "0.33")
    assert code == 0
    code, *_ = run(capsys, "plan", TINY, *PRESET, "--comfyui", "0.20")
    assert code == 2


def test_a_saved_recipe_remembers_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    saved, target = tmp_path / "recipe.json", tmp_path / "model.safetensors"
    options = (*PRESET[1:], "--gpu", "ampere", "--comfyui", "0.33", "--output", saved)
    assert run(capsys, "recipe", "show", *options)[0] == 0
    assert json.loads(saved.read_text())["comfyui"] == "0.33"
    assert run(capsys, "quantize", TINY, target, "--recipe", saved)[0] == 0
    again = tmp_path / "again.json"
    assert run(capsys, "recipe", "from-checkpoint", target, "--output", again)[0] == 0
    assert json.loads(again.read_text())["comfyui"] == "0.33"
    code, out, err = run(capsys, "plan", TINY, "--recipe", saved, "--comfyui", "0.29")
    assert code == 1 and "only ComfyUI 0.33" in out + err


def test_mixes_take_it_only_where_it_can_be_loaded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    errors = {"nvfp4": 0.15, ASYM: 0.07, "float8_e4m3fn": 0.03}
    path = save_made_up(tmp_path / "sensitivity.json", TINY, errors)
    options = ("--sensitivity", path, *PRESET, "--formats", f"nvfp4,{ASYM},bf16")
    newer = ("--comfyui", "0.33", "--budget", "bits=4.6", "--output", tmp_path / "mix.json")
    code, mix = run_json(capsys, "mix", TINY, *options, *newer)
    assert code == 0 and mix["mix"]["counts"][ASYM] > 3
    assert json.loads((tmp_path / "mix.json").read_text())["comfyui"] == "0.33"
    code, out, err = run(capsys, "mix", TINY, *options)
    assert code == 1 and "the mix (asym_w4a8_int8)" in out + err


def test_versions_compare_as_numbers() -> None:
    assert parse_version("v0.33.1+cu130") == (0, 33, 1) and parse_version("0.9") < (0, 29)
    assert outside_of("0.28.3", ("0.29", "0.33")) == "older"
    assert not outside_of("0.29.1", ("0.29", "0.33")) and not outside_of("0.33.7", ("0.29", "0.33"))
    assert outside_of("0.34.0", ("0.29", "0.33")) == "newer"
    assert outside_of("0.2.41", ("0.2.24", "0.2.40")) == "newer"
    assert not outside_of("not installed", ("0.29", "0.33"))
