"""The options that commands share: one option with two spellings each, never many of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.calibration import InputScalePolicy
from nvfp4_foundry.quant.derive import MIX_FORMATS, GgufMapping
from nvfp4_foundry.quant.derive.from_calibration import DEFAULT_MAX_INPUT_ERROR
from nvfp4_foundry.quant.derive.from_sensitivity import DEFAULT_MAX_ERROR
from nvfp4_foundry.quant.rounding import DEFAULT_ROUNDING
from nvfp4_foundry.quant.sensitivity.measure import DEFAULT_CANDIDATES

from tests.helpers.command_line import leaf_commands, run, run_json

TINY = str(MODEL_PATH)
Capture = pytest.CaptureFixture[str]


def formats(capsys: Capture, *options: object) -> dict[str, str]:
    code, plan = run_json(capsys, "plan", TINY, *options)
    assert code == 0
    return {layer["name"]: layer["format"] for layer in plan["layers"]}


@pytest.mark.parametrize("name", sorted(leaf_commands()))
def test_no_command_has_more_than_16_options(name: str) -> None:
    actions = leaf_commands()[name]._actions
    options = [a.dest for a in actions if a.option_strings and a.dest != "help"]
    assert len(options) <= 16, options


GGUF = GgufMapping()
DEFAULTS = (
    ("mix", f"default: {','.join(MIX_FORMATS)}"),
    ("sensitivity", f"default: {','.join(DEFAULT_CANDIDATES)}"),
    ("sensitivity", f"default: {DEFAULT_ROUNDING}"),
    ("quantize", f"{DEFAULT_ROUNDING} (default)"),
    ("quantize", f"{InputScalePolicy().kind} (default)"),
    ("quantize", f"headroom (default: {InputScalePolicy().headroom:g}"),
    ("recipe from-calibration", f"default: {DEFAULT_MAX_INPUT_ERROR:.0%}"),
    ("recipe from-sensitivity", f"default: {DEFAULT_MAX_ERROR:.0%}"),
    ("recipe from-gguf", f"default: {GGUF.bits_limit},"),
    ("recipe from-gguf", f"default: {GGUF.higher}"),
    ("recipe from-gguf", f"default: {GGUF.edge_blocks}"),
    ("recipe from-gguf", f"default: {GGUF.edge_format}"),
)


@pytest.mark.parametrize(("name", "default"), DEFAULTS)
def test_help_names_the_defaults(name: str, default: str) -> None:
    """They are not imported from where they are defined, which would take seconds."""
    assert default in " ".join(leaf_commands()[name].format_help().split())


def test_both_spellings_take_a_preset_or_a_file(tmp_path: Path, capsys: Capture) -> None:
    file, bare = tmp_path / "mine.json", tmp_path / "mine"
    assert run(capsys, "recipe", "show", "wan2.2-14b", "--output", file)[0] == 0
    bare.write_bytes(file.read_bytes())
    wanted = formats(capsys, "--preset", "wan2.2-14b")
    for option in ("--preset", "--recipe"):
        for value in ("wan2.2-14b", "auto", file, bare):
            assert formats(capsys, option, value) == wanted
    assert wanted != formats(capsys, "--preset", "all")


def test_a_file_in_this_folder_needs_no_separator(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "recipe", "show", "all", "--output", "mine")[0] == 0
    assert run(capsys, "plan", TINY, "--recipe", "mine")[0] == 0
    code, _, error = run(capsys, "plan", TINY, "--recipe", "mine.json")
    assert code == 2 and "cannot read recipe mine.json" in error
    code, _, error = run(capsys, "plan", TINY, "--recipe", "other")
    assert code == 2 and "unknown preset 'other'" in error and "no file of that name" in error


def test_a_recipe_is_named_once(capsys: Capture) -> None:
    for second in (("--preset", "all"), ("--recipe", "mine.json")):
        code, _, error = run(capsys, "plan", TINY, "--preset", "all", *second)
        assert code == 2 and "--preset/--recipe: it can be given only once" in error


@pytest.mark.parametrize("option", ["--set", "--setting"])
def test_settings_and_rules_are_told_apart(option: str, capsys: Capture) -> None:
    preset = ("--preset", "wan2.2-14b")
    found = formats(capsys, *preset, option, "edge_blocks=1", option, "*.ffn.2 = bf16")
    assert found["blocks.1.self_attn.q"] == "nvfp4" and found["blocks.1.ffn.2"] == "bf16"
    found = formats(capsys, *preset, option, "edge_blocks=0", option, "* @ first:1 = bf16")
    assert found["blocks.0.self_attn.q"] == "bf16" and found["blocks.3.self_attn.q"] == "nvfp4"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--preset", "wan2.2-14b", "--setting", "edges=1"),
            "has no setting edges; its settings are edge_",
        ),
        (("--preset", "wan2.2-14b", "--set", "edges=1"), "the settings of preset wan2.2-14b: edge"),
        (("--preset", "wan2.2-14b", "--set", "edge_blocks=many"), "edge_blocks must be"),
        (("--preset", "wan2.2-14b", "--setting", "edge_blocks"), "edge_blocks must be"),
        (("--recipe", "FILE", "--setting", "edge_blocks=1"), "only presets have settings"),
        (("--recipe", "FILE", "--set", "edge_blocks=1"), "unknown format '1'"),
        ((), "give --preset NAME or --recipe FILE"),
        (("--set", "edge_blocks=1"), "give --preset NAME or --recipe FILE"),
    ],
)
def test_wrong_edits_say_what_is_possible(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"rules": [{"format": "nvfp4"}]}))
    given = [file if option == "FILE" else option for option in options]
    code, _, error = run(capsys, "plan", TINY, *given)
    assert code == 2 and message in error


@pytest.mark.parametrize("option", ["--calibration", "--stats"])
def test_both_spellings_take_a_calibration(
    option: str, statistics: Path, tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "o.safetensors"
    quantize = ("quantize", TINY, target, "--preset", "all", "--rounding", "max")
    code, report = run_json(capsys, *quantize, option, statistics)
    assert code == 0 and all(
        layer["input_scale"] for layer in report["layers"] if layer["format"] == "nvfp4"
    )
    assert run(capsys, "rescale", target, option, statistics, "--dry-run")[0] == 0
