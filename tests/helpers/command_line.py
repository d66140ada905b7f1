"""Running ``nvfp4`` in this process, and the parsers of all its commands, for tests."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import pytest
from nvfp4_foundry.quant.cli import main
from nvfp4_foundry.quant.cli.main import build_parser


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:  # wrong arguments and --help end so
        assert isinstance(stop.code, int)
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    """Return exit code and what was printed with ``--json``."""
    code, out, _ = run(capsys, *arguments, "--json")
    return code, json.loads(out)


def leaf_commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of all commands that do something, by name: ``recipe show``."""
    return dict(_leaves(build_parser(), ()))


def _leaves(
    parser: argparse.ArgumentParser, name: tuple[str, ...]
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(name), parser
    for group in groups:
        for part, command in group.choices.items():
            yield from _leaves(command, (*name, part))
