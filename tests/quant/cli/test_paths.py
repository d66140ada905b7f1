"""What a command reads is never overwritten, whatever its options are called."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from nvfp4_foundry.demo.model import MODEL_PATH
from nvfp4_foundry.quant.calibration import load_statistics
from nvfp4_foundry.quant.cli.paths import InputPath, MergedPath, OutputPath
from safetensors.torch import load_file, save_file

from tests.helpers.command_line import leaf_commands, run

Q = "blocks.1.self_attn.q"
ALL = ("--preset", "all", "--rounding", "max")
SUFFIXES = (".safetensors", ".png", ".html")
Capture = pytest.CaptureFixture[str]


class Case(NamedTuple):
    """A command with an argument to read and one to write."""

    command: str
    read: argparse.Action
    write: argparse.Action

    def __str__(self) -> str:
        return f"{self.command}, {self.read.dest} and {self.write.dest}"


def value_of(action: argparse.Action, text: str) -> object:
    """Return what an argument makes of a text."""
    return action.type(text) if callable(action.type) else text


def suffix_for(action: argparse.Action) -> str | None:
    """Return the suffix of a file that the argument writes, None if it writes none."""
    for suffix in SUFFIXES:
        try:
            if isinstance(value_of(action, f"out{suffix}"), OutputPath):
                return suffix
        except (argparse.ArgumentTypeError, ValueError):
            continue
    return None


def input_text(action: argparse.Action, path: str) -> str | None:
    """Return how the argument names a file to read, None if it reads none."""
    for text in (path, f"file={path}"):
        try:
            if path in map(str, getattr(value_of(action, text), "inputs", ())):
                return text
        except (argparse.ArgumentTypeError, ValueError):
            continue
    return None


def cases() -> Iterator[Case]:
    for name, parser in leaf_commands().items():
        outputs = [action for action in parser._actions if suffix_for(action)]
        inputs = [a for a in parser._actions if input_text(a, "folder/in.safetensors")]
        yield from (Case(name, a, b) for a in inputs for b in outputs)


def arguments(case: Case, read: Path, written: Path, other: Path) -> list[str]:
    """Return a command line that names these files to read and to write, ``other`` elsewhere."""
    given = case.command.split()
    for action in leaf_commands()[case.command]._actions:
        is_output = suffix_for(action) is not None
        if action.dest == case.read.dest:
            text = input_text(action, str(read))
        elif action.dest == case.write.dest:
            text = str(written)
        elif action.required or not action.option_strings:
            text = str(other.with_suffix(".new") if is_output else other)
        else:
            continue
        assert text is not None
        given += [*action.option_strings[:1], text]
    if "--overwrite" in leaf_commands()[case.command]._option_string_actions:
        given.append("--overwrite")
    return given


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_no_output_is_an_input(case: Case, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / f"file{suffix_for(case.write)}"
    other = tmp_path / "other.safetensors"
    for path in (file, other):
        path.write_bytes(b"precious")
    code, _, error = run(capsys, *arguments(case, file, file, other))
    if case.read.type is MergedPath:  # replaced, were it a calibration
        assert code == 1 and "not a safetensors file" in error
    else:
        assert code == 2 and f"{file} is one of the input files" in error
    assert file.read_bytes() == other.read_bytes() == b"precious"
    assert sorted(tmp_path.iterdir()) == [file, other]


def test_every_command_with_inputs_and_outputs_was_tried() -> None:
    found = {case.command for case in cases()}
    assert found == {
        "quantize", "report", "rescale", "sensitivity", "mix", "recipe show", "recipe from-gguf",
        "recipe from-checkpoint", "recipe from-calibration", "recipe from-sensitivity",
        "stats merge", "stats import", "stats export",
    }  # fmt: skip
    assert len(list(cases())) > 40


def test_every_path_is_typed() -> None:
    """An argument whose help or metavar speaks of a file says whether it is read or written."""
    untyped = [
        f"{name} {action.dest}"
        for name, parser in leaf_commands().items()
        for action in parser._actions
        if str(action.metavar).upper() in ("FILE", "SRC", "DST", "OUT", "PNG", "LOG", "MODEL")
        and not suffix_for(action)
        and not input_text(action, "folder/in.safetensors")
    ]
    assert untyped == []


@pytest.mark.parametrize("command", ["quantize", "sensitivity", "mix"])
def test_two_outputs_need_two_names(command: str, tmp_path: Path, capsys: Capture) -> None:
    same = tmp_path / "a.png"
    options: dict[str, tuple[object, ...]] = {
        "quantize": (tmp_path / "a.json", "--preset", "all", "--report", tmp_path / "a.json"),
        "sensitivity": ("--calibration", "c.safetensors", "--output", same, "--plot", same),
        "mix": ("--sensitivity", "s.json", "--output", same, "--plot", same),
    }
    code, _, error = run(capsys, command, MODEL_PATH, *options[command])
    assert code == 2 and "is named for two outputs" in error
    assert not list(tmp_path.iterdir())


def test_an_input_under_another_name_is_seen(tmp_path: Path, capsys: Capture) -> None:
    file, alias = tmp_path / "a.json", tmp_path / "alias.json"
    file.write_text("{}")
    os.link(file, alias)
    for name in (alias, tmp_path / "." / ".." / tmp_path.name / "a.json"):
        code, *_ = run(capsys, "recipe", "show", file, "--output", name, "--overwrite")
        assert code == 2 and file.read_text() == "{}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny model as a folder with an index and one shard."""
    folder = tmp_path / "shards"
    folder.mkdir()
    tensors = load_file(MODEL_PATH)
    save_file(tensors, folder / "m.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "m.safetensors")}
    (folder / "m.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    "command",
    ["quantize", "quantize --report", "stats import", "recipe from-checkpoint", "rescale"],
)
def test_files_of_a_folder_are_inputs(
    command: str, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    """They are known when it is open only."""
    shard, index = folder / "m.safetensors", folder / "m.safetensors.index.json"
    log = tmp_path / "log.txt"
    log.touch()
    arguments: dict[str, tuple[object, ...]] = {
        "quantize": ("quantize", folder, shard, *ALL),
        "quantize --report": ("quantize", folder, tmp_path / "o", *ALL, "--report", index),
        "stats import": ("stats", "import", log, "--model", folder, "--output", shard),
        "recipe from-checkpoint": ("recipe", "from-checkpoint", folder, "--output", shard),
        "rescale": ("rescale", folder, "--input-scale", "dynamic", "--output", shard),
    }
    before = {path: path.read_bytes() for path in (shard, index)}
    code, _, error = run(capsys, *arguments[command], "--overwrite")
    assert code == 2 and "is one of the input files" in error
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "o").exists()


def test_a_merged_calibration_may_replace_one_of_its_parts(
    statistics: Path, capsys: Capture
) -> None:
    before = statistics.read_bytes()
    merge = ("stats", "merge", statistics, "--output", statistics)
    code, _, error = run(capsys, *merge)
    assert code == 1 and "exists; use --overwrite" in error and statistics.read_bytes() == before
    assert run(capsys, *merge, "--overwrite")[0] == 0
    assert len(load_statistics(statistics).runs) == 1


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("FOLDER", "is a folder; give a file name"),
        ("FOLDER/nowhere/r.json", "nowhere does not exist; create it"),
        ("FOLDER/mine.json", "exists; use --overwrite to replace it"),
    ],
)
def test_outputs_that_cannot_be_written_are_1(
    output: str, message: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "mine.json").write_text("precious")
    path = output.replace("FOLDER", str(tmp_path))
    code, out, error = run(capsys, "recipe", "show", "all", "--output", path, "--json")
    assert code == 1 and message in error and json.loads(out)["error"] in error
    assert (tmp_path / "mine.json").read_text() == "precious"


def test_a_place_on_the_hub_stays_as_it_is() -> None:
    place = InputPath("hf://owner/repo/file.safetensors")
    assert place == "hf://owner/repo/file.safetensors" and place.inputs == (place,)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_neither_read_nor_replaced(tmp_path: Path, capsys: Capture) -> None:
    """Reading one would wait for ever, and a rename would replace it."""
    tried = set()
    for case in cases():
        suffix = suffix_for(case.write)
        for action in (case.read, case.write):
            if (case.command, action.dest) in tried:
                continue
            tried.add((case.command, action.dest))
            folder = tmp_path / str(len(tried))
            folder.mkdir()
            pipe, other = folder / f"pipe{suffix}", folder / "other.safetensors"
            os.mkfifo(pipe)
            other.write_bytes(b"precious")
            read, written = (
                (pipe, folder / f"new{suffix}") if action is case.read else (other, pipe)
            )
            code, _, error = run(capsys, *arguments(case, read, written, other))
            assert code == 1 and "is a named pipe" in error, (case, action.dest, error)
            assert pipe.is_fifo() and other.read_bytes() == b"precious"
            assert len(list(folder.iterdir())) == 2
    assert len(tried) > 30
