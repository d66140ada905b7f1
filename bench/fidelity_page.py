"""Put tables into a page, section by section, and leave the rest of the page as it is."""

from __future__ import annotations

import re
from pathlib import Path

TITLE, TABLES, NOTES = "# Fidelity", "## Tables", "## Notes"


def put_section(path: Path, intro: str, made_by: str, lines: list[str]) -> None:
    """Write one section into a page, in the place of a section with the same heading.

    ``intro`` and ``made_by`` are the paragraphs above and below the heading of the tables. A new
    section becomes the last. What the page has from "## Notes" on stays.
    """
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, _, after = page.partition(f"\n{NOTES}\n")
    tables = before.partition(f"\n{TABLES}\n")[2]
    found = re.split(r"^(?=### )", tables, flags=re.MULTILINE)[1:]
    sections = {section.partition("\n")[0]: section.strip() for section in found}
    sections[lines[0]] = "\n".join(lines).strip()
    parts = [TITLE, intro.strip(), TABLES, made_by, *sections.values()]
    if after:
        parts += [NOTES, after.strip()]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
