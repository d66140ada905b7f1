"""Every ``nvfp4`` command in the documents is one that the command line understands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from nvfp4_foundry.quant.cli.main import build_parser

from tests.helpers.command_line import leaf_commands

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "web" / "docs").glob("*.md")),
]


def commands_in(path: Path) -> Iterator[str]:
    """Yield the commands in blocks of code, continued lines joined and comments left out."""
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"^(?:```\w*\n(.*?)^```|((?: {4}.+\n)+))", text, re.M | re.S):
        for line in re.sub(r"\\\n\s*", " ", block[0] or block[1]).splitlines():
            command = re.sub(r"\s{2,}#.*", "", line.strip())
            if command.startswith("nvfp4 ") and "..." not in command:
                yield command


FOUND = [(path, command) for path in DOCUMENTS for command in commands_in(path)]


def test_commands_are_found() -> None:
    assert len(FOUND) >= 20
    assert any("\\" not in command and "--calibration" in command for _, command in FOUND)


@pytest.mark.parametrize(
    ("path", "command"), FOUND, ids=[f"{p.stem}: {c.partition(' -')[0]}" for p, c in FOUND]
)
def test_a_documented_command_is_understood(path: Path, command: str) -> None:
    arguments = shlex.split(command)[1:]
    try:
        build_parser().parse_args(arguments)
    except SystemExit as error:
        assert error.code == 0, f"{path.relative_to(ROOT)}: {command}"


@pytest.mark.parametrize("name", sorted(leaf_commands()))
def test_the_examples_of_a_command_are_understood(name: str) -> None:
    examples = [
        line.strip()
        for line in (leaf_commands()[name].epilog or "").splitlines()
        if line.strip().startswith("nvfp4 ")
    ]
    assert examples
    for example in examples:
        build_parser().parse_args(shlex.split(example)[1:])
