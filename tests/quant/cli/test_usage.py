"""``nvfp4`` used wrongly: nothing that is read is overwritten, nothing asked for is ignored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.cli import main

from tests.helpers.command_line import run, run_json

Q = "blocks.1.self_attn.q"
ALL = ("--preset", "all", "--rounding", "max")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def scales(tmp_path: Path) -> Path:
    path = tmp_path / "scales.json"
    path.write_text(json.dumps({Q: 0.5}))
    return path


@pytest.mark.parametrize("command", ["quantize", "quantize --report", "rescale", "recipe", "stats"])
def test_no_target_is_a_file_that_is_read(
    command: str, scales: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Least of all the files that are named by an option in passing."""
    recipe, made = tmp_path / "recipe.json", tmp_path / "made.safetensors"
    assert run(capsys, "recipe", *ALL, "--output", recipe)[0] == 0
    assert run(capsys, "quantize", MODEL_PATH, made, *ALL)[0] == 0
    by_file = ("--input-scale", f"file={scales}", "--overwrite")
    arguments = {
        "quantize": ("quantize", MODEL_PATH, recipe, "--recipe", recipe, "--overwrite"),
        "quantize --report": ("quantize", MODEL_PATH, made, *ALL, *by_file, "--report", scales),
        "rescale": ("rescale", made, *by_file, "--output", scales),
        "recipe": ("recipe", "--from-checkpoint", made, *by_file, "--output", scales),
        "stats": ("stats", "--import-log", scales, "--model", MODEL_PATH, *by_file,
                  "--output", MODEL_PATH),
    }[command]  # fmt: skip
    before = {path: path.read_bytes() for path in (recipe, made, scales, MODEL_PATH)}
    code, _, error = run(capsys, *arguments)
    assert code == 2 and "is what is read here" in error
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("recipe", "--rounding", "max"), "give --preset, --recipe or --from-..."),
        (("recipe", "--headroom", "3"), "give --preset, --recipe or --from-..."),
        (("recipe", "--schema", "--preset", "all"), "--schema is of all recipes"),
        (("recipe", "--preset", "all", "--max-spread", "2"), "belongs to --from-stats"),
        (("recipe", "--from-gguf", "a.gguf", "--from-stats", "b"), "not allowed with another"),
        (("recipe", "--from-checkpoint", "a.gguf"), "use --from-gguf"),
        (("verify", "made.safetensors", "--complete-from", "b"), "give both"),
        (("rescale", "hf://o/r/a.safetensors", "--dynamic", "--in-place"), "use --output"),
    ],
)
def test_nothing_that_is_asked_for_is_ignored(
    arguments: tuple[str, ...], message: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvfp4_foundry.quant.commands.rescale.local_path", Path)
    code, _, error = run(capsys, *arguments)
    assert code == 2 and message in error


def test_a_folder_is_no_target(tmp_path: Path, capsys: Capture) -> None:
    """``--overwrite`` would be no advice."""
    code, _, error = run(capsys, "recipe", *ALL, "--output", tmp_path, "--overwrite")
    assert code == 1 and "is a folder; give a file name" in error


def test_a_plan_says_what_is_wrong_with_a_file_of_scales(scales: Path, capsys: Capture) -> None:
    """A dry run finds what would stop the conversion."""
    by_file = ("--input-scale", f"file={scales}")
    assert run(capsys, "plan", MODEL_PATH, *ALL, *by_file)[0] == 0
    scales.write_text(json.dumps({"blocks.1.self_atn.q": 0.5}))
    code, _, error = run(capsys, "plan", MODEL_PATH, *ALL, *by_file)
    assert code == 1 and Q in error
    scales.unlink()
    assert run(capsys, "plan", MODEL_PATH, *ALL, *by_file)[0] == 1


def test_the_schema_is_saved_where_asked(tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "schema.json"
    assert run(capsys, "recipe", "--schema", "--output", target)[0] == 0
    assert json.loads(target.read_text()) == run_json(capsys, "recipe", "--schema")[1]


@pytest.mark.parametrize(
    "arguments", [("plan", "--json"), ("rescale", "a", "--json"), ("nonsense", "--json")]
)
def test_wrong_arguments_are_told_as_json_too(arguments: tuple[str, ...], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert exit_.value.code == 2 and answer["ok"] is False and answer["error"] in printed.err
