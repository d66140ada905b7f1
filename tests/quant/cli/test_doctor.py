"""``nvfp4 doctor``."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.command_line import run_json

Capture = pytest.CaptureFixture[str]


def test_doctor(capsys: Capture) -> None:
    code, machine = run_json(capsys, "doctor")
    assert code == 0
    assert machine["torch"] == torch.__version__
    assert machine["backends"]["eager"] == "available"
    assert machine["advice"]
