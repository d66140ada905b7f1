"""English sentences for the sentence encoder: prose of docstrings of installed packages.

The files of a package are dealt to two groups, so that no sentence of one group comes from a file
of the other.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("sklearn", "skimage")
#: One or more sentences of plain words; no lists, formulas or code.
_PROSE = re.compile(r"(?!.*--)[A-Z][A-Za-z0-9 ,;:()'\"-]+(?:\. [A-Z][A-Za-z0-9 ,;:()'\"-]+)*\.")
_FEWEST_WORDS, _MOST_WORDS = 8, 60


def prose_of(source: str) -> Iterator[str]:
    """Yield the paragraphs of prose in all docstrings of a Python file."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented):
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                text = " ".join(paragraph.split())
                if _PROSE.fullmatch(text) and _FEWEST_WORDS <= text.count(" ") + 1 <= _MOST_WORDS:
                    yield text


def _files_of(package: str) -> list[Path]:
    """Return the Python files of a package, without its tests."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ImportError("install the texts: pip install 'nvfp4-foundry[bench]'")
    folder = Path(found.origin).parent
    return sorted(file for file in folder.rglob("*.py") if "tests" not in file.parts)


def draw_sentences(calibrating: int, judging: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return distinct texts to calibrate with, and others to judge on, in random order.

    Raises:
        ImportError: a package is not installed.
        ValueError: the packages have too few texts.
    """
    order = random.Random(seed)
    files = [file for package in PACKAGES for file in _files_of(package)]
    order.shuffle(files)
    most = len(files) * 3 // 4
    seen: set[str] = set()
    groups: list[list[str]] = []
    for group, wanted in ((files[:most], calibrating), (files[most:], judging)):
        texts = {text for file in group for text in prose_of(file.read_text(encoding="utf-8"))}
        texts = sorted(texts - seen)
        if len(texts) < wanted:
            raise ValueError(f"the packages have {len(texts)} texts, and {wanted} are wanted")
        seen.update(texts)
        groups.append(order.sample(texts, wanted))
    return groups[0], groups[1]
