"""Running ``nvfp4`` in this process, for tests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nvfp4_foundry.quant.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    """Return exit code and what was printed with ``--json``."""
    code, out, _ = run(capsys, *arguments, "--json")
    return code, json.loads(out)
