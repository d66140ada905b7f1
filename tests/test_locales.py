"""The translations: complete, in their language, and with the same names, values and numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

LOCALES = Path(__file__).parents[1] / "locales"
FILES = ("main.json", "nodeDefs.json")
TRANSLATED = ("zh", "ja")
#: What must not be translated: names with an underscore, numbers, values in quotes, field terms.
_FIXED = re.compile(
    r"\b[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+\b"
    r"|(?<![\w.])\d+(?:\.\d+)?(?!\w)"
    r"|(?<!\w)'[^']+'(?!\w)"
    r"|\b(?:NVFP4|W4A4|amax|sigma|Hessian|GGUF|LoRA|WAN|MODEL|CLIP|LATENT|IMAGE|VAE|JSON|GPU"
    r"|Blackwell|Turing|Ampere|Ada|Hopper|gptq|gptaq|mse|float8|bf16)(?!\w)"
)
_SCRIPTS = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff\u4e00-\u9fff]"}
_KANA = r"[\u3040-\u30ff]"
#: The page compiles names and descriptions as messages in which these have a meaning.
_SYNTAX = re.compile(r"[@{}|]")


def texts(locale: str) -> dict[str, str]:
    """Return the texts of a locale by the path to each."""
    return {
        f"{name}/{path}": text
        for name in FILES
        for path, text in _leaves(json.loads((LOCALES / locale / name).read_text("utf-8")))
    }


def _leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", value


def test_these_locales_are_there() -> None:
    assert {folder.name for folder in LOCALES.iterdir()} == {"en", *TRANSLATED}
    assert len(texts("en")) > 300


@pytest.mark.parametrize("locale", TRANSLATED)
def test_a_translation_has_exactly_the_keys_of_english(locale: str) -> None:
    assert list(texts(locale)) == list(texts("en"))


@pytest.mark.parametrize("locale", TRANSLATED)
def test_a_translation_keeps_names_values_and_numbers(locale: str) -> None:
    translated = texts(locale)
    for path, english in texts("en").items():
        if not path.endswith("/name"):  # the name of an input is a key, not a text
            lost = [term for term in _FIXED.findall(english) if term not in translated[path]]
            assert not lost, f"{path}: {lost}"


@pytest.mark.parametrize("locale", TRANSLATED)
def test_a_translation_is_in_its_language(locale: str) -> None:
    english, translated = texts("en"), texts(locale)
    for path, text in translated.items():
        if path.endswith(("/tooltip", "/description", "/display_name")):
            assert re.search(_SCRIPTS[locale], text), path
            assert text != english[path], path
        if path.endswith("/description"):
            assert bool(re.search(_KANA, text)) == (locale == "ja"), path


@pytest.mark.parametrize("locale", ("en", *TRANSLATED))
def test_texts_mean_what_they_say_to_the_page(locale: str) -> None:
    for path, text in texts(locale).items():
        assert text.strip() == text and text, path
        # tooltips are shown as they are; the rest is compiled
        assert path.endswith("/tooltip") or not _SYNTAX.search(text), path
