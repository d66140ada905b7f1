"""``nvfp4 stats show`` and ``merge``."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvfp4_foundry.quant.calibration import (
    load_statistics,
)

from tests.helpers.command_line import run, run_json

Capture = pytest.CaptureFixture[str]


def test_stats_show_and_merge(tmp_path: Path, statistics: Path, capsys: Capture) -> None:
    code, summary = run_json(capsys, "stats", "show", statistics)
    assert code == 0 and summary["layers"]["blocks.0.ffn.0"]["amax"] == 3.5
    twice = tmp_path / "twice.safetensors"
    code, _, error = run(capsys, "stats", "merge", statistics, statistics, "--output", twice)
    assert code == 1 and "run" in error and not twice.exists()
    assert run(capsys, "stats", "merge", statistics, "--output", twice)[0] == 0
    assert len(load_statistics(twice).runs) == 1
    assert run(capsys, "stats", "merge", statistics, "--output", twice)[0] == 1
