"""A section is put into the page, and nothing else of the page changes."""

from __future__ import annotations

from pathlib import Path

from fidelity_page import put_section

PAGE = """\
# Fidelity

Old words.

## Tables

Made by an older command.

### One

| 1 |

#### Inside

### Two

| 2 |

## Notes

### One

A note with the same heading.
"""


def test_a_section_replaces_the_one_with_its_heading(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    put_section(page, "New words.\n", "Made by a command.", ["### One", "", "| 3 |", ""])
    expected = PAGE.replace("| 1 |\n\n#### Inside", "| 3 |").replace("Old", "New")
    expected = expected.replace("an older command", "a command")
    assert page.read_text(encoding="utf-8") == expected


def test_a_new_page_gets_its_sections_in_turn(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for name in ("One", "Two"):
        put_section(page, "Words.", "Made by a command.", [f"### {name}", "", f"| {name} |"])
    assert page.read_text(encoding="utf-8") == (
        "# Fidelity\n\nWords.\n\n## Tables\n\nMade by a command.\n\n"
        "### One\n\n| One |\n\n### Two\n\n| Two |\n"
    )
