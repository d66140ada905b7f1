"""One version of ruff, wherever it runs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_hooks_and_the_tests_use_one_ruff() -> None:
    found = {
        version
        for name in (".pre-commit-config.yaml", "tests/constraints.txt")
        for version in re.findall(r"\bruff==([\d.]+)", (ROOT / name).read_text(encoding="utf-8"))
    }
    assert len(found) == 1
