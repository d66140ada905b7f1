"""Decks of calibration prompts: built in, typed, or from a text file."""

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
        ValueError: it is no UTF-8 text, or holds no prompt.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors put a mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 text; save it as UTF-8") from error
    return parse_deck(text, path.name)


def parse_deck(text: str, origin: str) -> list[str]:
    """Return one prompt per line; blank lines and lines starting with ``#`` are skipped.

    Raises:
        ValueError: no prompt is left.
    """
    lines = (line.strip() for line in text.splitlines())
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise ValueError(f"{origin} holds no prompt: write one a line")
    return prompts
