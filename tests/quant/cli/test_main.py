"""``nvfp4`` as a whole: help, exit codes, wrong usage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.cli import main
from nvfp4_foundry.quant.cli.main import COMMANDS
from safetensors.torch import save_file

from tests.helpers.command_line import leaf_commands, run

TINY = str(MODEL_PATH)
MIXED = ("--preset", "wan2.2-14b", "--setting", "edge_blocks=1")
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", sorted(leaf_commands()))
def test_help_has_an_example_and_every_command_takes_json(name: str, capsys: Capture) -> None:
    code, text, _ = run(capsys, *name.split(), "--help")
    assert code == 0
    assert f"nvfp4 {name}" in text.split("\nexample")[1]
    assert "--json" in text


def test_help_lists_every_command(capsys: Capture) -> None:
    code, text, _ = run(capsys, "--help")
    assert code == 0 and all(f"\n    {command}" in text for command in COMMANDS)


@pytest.mark.parametrize("group", ["recipe", "stats"])
def test_a_group_alone_names_its_subcommands(group: str, capsys: Capture) -> None:
    code, _, error = run(capsys, group)
    assert code == 2 and f"nvfp4 {group}: error: give a subcommand: " in error
    assert all(name.split()[1] in error for name in leaf_commands() if name.startswith(group))


def test_errors_name_the_subcommand(capsys: Capture) -> None:
    code, _, error = run(capsys, "recipe", "show", "nope")
    assert code == 2 and error.startswith("nvfp4 recipe show: unknown preset 'nope'")
    code, _, error = run(capsys, "stats", "show", "gone.safetensors")
    assert code == 1 and error.startswith("nvfp4 stats show: gone.safetensors")


def test_unknown_commands_and_options_are_2() -> None:
    wrong = (["frobnicate"], ["plan"], ["plan", TINY, "--nope"], [], ["stats", "frobnicate"])
    for arguments in wrong:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "missing.safetensors", "--preset", "all"), "missing.safetensors does not exist"),
        (("plan", TINY, "--preset", "wan2.2-ti2v-5b"), "WAN T2V"),
        (("plan", TINY, "--preset", "all", "--set", "blocks.0.ffn.9=bf16"), "blocks.0.ffn.0"),
        (("inspect", "missing.safetensors"), "does not exist"),
        (("stats", "show", TINY), "calibration"),
        (("quantize", TINY, "no-such-folder/o.safetensors", "--preset", "all"), "no-such-folder"),
    ],
)
def test_failures_are_1_and_name_the_culprit(
    arguments: tuple[str, ...], message: str, capsys: Capture
) -> None:
    code, _, error = run(capsys, *arguments)
    assert code == 1 and message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--json"),
        ("rescale", "a", "--json"),
        ("nonsense", "--json"),
        ("recipe", "--json"),
        ("quantize", "a", "b", "--report", "r.pdf", "--json"),
    ],
)
def test_wrong_arguments_are_told_as_json_too(arguments: tuple[str, ...], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert exit_.value.code == 2 and answer["ok"] is False and answer["error"] in printed.err


def test_runs_as_a_program_and_is_quiet_without_a_terminal(tmp_path: Path) -> None:
    target = tmp_path / "o.safetensors"
    done = subprocess.run(
        [sys.executable, "-m", "nvfp4_foundry.quant.cli", "quantize", TINY, target, *MIXED],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "26 float8_e4m3fn, 14 nvfp4" in done.stdout


def test_an_abbreviated_json_option_is_enough_for_errors(capsys: Capture) -> None:
    code, out, _ = run(capsys, "inspect", "gone.safetensors", "--js")
    assert code == 1 and json.loads(out)["ok"] is False


def test_control_characters_of_names_do_not_reach_the_terminal(
    tmp_path: Path, capsys: Capture
) -> None:
    name = "x\x1b[31m\u202e"
    save_file({f"{name}.weight": torch.zeros(8, 32)}, tmp_path / "model.safetensors")
    for command in ("inspect", "report", "verify"):
        code, out, error = run(capsys, command, tmp_path / "model.safetensors")
        assert code == 0 and "\x1b" not in out + error and "\u202e" not in out + error
    assert "x\\u001b[31m\\u202e" in run(capsys, "inspect", tmp_path / "model.safetensors")[1]
