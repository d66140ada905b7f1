"""Decks of prompts: built in, typed, or from a text file."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "presets" / "decks"


def deck_names() -> list[str]:
    """Return the names of the built-in decks."""
    return sorted(path.stem for path in _FOLDER.glob("*.txt"))


def built_in_deck(name: str) -> list[str]:
    """Return the prompts of a built-in deck."""
    return parse_deck((_FOLDER / f"{name}.txt").read_text(encoding="utf-8"), name)


def read_deck(path: Path) -> list[str]:
    """Return the prompts of a text file.

    Raises:
        ValueError: the file is not UTF-8 text, or has no prompts.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors add a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 text; save it as UTF-8") from error
    return parse_deck(text, path.name)


def parse_deck(text: str, origin: str) -> list[str]:
    """Return the prompts, one per line; skip blank lines and lines that start with ``#``.

    Raises:
        ValueError: there are no prompts.
    """
    lines = (line.strip() for line in text.splitlines())
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise ValueError(f"{origin} has no prompts; write one per line")
    return prompts
