"""Names of files that are valid on every system."""

from __future__ import annotations

import pytest
from nvfp4_foundry.nodes.files.names import normal, quoted, why_not_name, why_not_path


@pytest.mark.parametrize(
    "name",
    ["a", "my model v1.2", "été", "模型", "👩‍🔬", "console", "com10", "nul_", "x" * 180, "a~1"],
)
def test_names_that_are_fine(name: str) -> None:
    assert why_not_name(name) is None and why_not_path(f"folder/{name}") is None


@pytest.mark.parametrize(
    "name",
    [
        "", "CON", "con.txt", "Nul .x", "LPT9", "com¹", "a.", "a ", " a", ".a", "a:b", "a\0",
        "a\x9b", "a\ud800", "a\u202e", "a\u2028", "x" * 181, "é" * 91,
    ],
)  # fmt: skip
def test_names_that_are_not(name: str) -> None:
    assert why_not_name(name) and why_not_path(f"folder/{name}")
    assert why_not_path(f"{name}/file")


def test_a_path_that_is_too_long() -> None:
    assert why_not_path("a/" * 400 + "a")


def test_names_are_composed_and_shown_without_invisible_characters() -> None:
    assert normal("e\u0301") == "\u00e9"
    assert quoted("a\x1b[2J\ud800") == r"'a\x1b[2J\ud800'"
    assert len(quoted("n" * 5000)) < 80
