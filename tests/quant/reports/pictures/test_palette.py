"""The palette of pictures is that of the browser, and needs no colour vision."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from nvfp4_foundry.quant.formats import FORMATS
from nvfp4_foundry.quant.reports.pictures.palette import (
    DARK,
    LIGHT,
    STEPS,
    Theme,
    cie_lightness,
    format_colours,
    sequential,
)

from tests.web.node import run_node

VIEW = Path(__file__).parents[4] / "web" / "view"
_PRINT = """
import { SEQUENTIAL, sequentialColour, formatColours } from "@VIEW@/palette.js";
const names = @NAMES@;
console.log(JSON.stringify({
  light: SEQUENTIAL.map((_, i) => sequentialColour(i / (SEQUENTIAL.length - 1), false)),
  dark: SEQUENTIAL.map((_, i) => sequentialColour(i / (SEQUENTIAL.length - 1), true)),
  formats: Object.fromEntries([...formatColours(names)].map(
    ([name, c]) => [name, [c.letter, c.rgb.map(Math.round), c.ink]])),
}));
"""


def test_the_browser_has_the_same_colours() -> None:
    names = [*FORMATS, "other", "another"]
    script = _PRINT.replace("@VIEW@", VIEW.as_uri()).replace("@NAMES@", json.dumps(names))
    done = run_node("--input-type=module", "-e", script)
    assert done.returncode == 0, done.stderr
    browser = json.loads(done.stdout)
    for name, theme in (("light", LIGHT), ("dark", DARK)):
        colours = [sequential(step / (STEPS - 1), theme) for step in range(STEPS)]
        assert browser[name] == [f"rgb({r},{g},{b})" for r, g, b in colours]
    inks = {"#111": (17, 17, 17), "#fff": (255, 255, 255)}
    for name, colour in format_colours(names).items():
        letter, fill, ink = browser["formats"][name]
        assert (colour.letter, list(colour.fill), colour.ink) == (letter, fill, inks[ink])


def test_formats_differ_in_lightness_and_letter() -> None:
    colours = format_colours(FORMATS)
    for first, second in combinations(colours.values(), 2):
        assert first.letter != second.letter
        assert abs(cie_lightness(first.fill) - cie_lightness(second.fill)) > 2.5


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_is_legible_and_high_values_stand_out(theme: Theme) -> None:
    paper = cie_lightness(theme.background)
    assert abs(cie_lightness(theme.text) - paper) > 70
    for colour in (theme.muted, theme.curve, theme.mark, theme.other):
        assert abs(cie_lightness(colour) - paper) > 40
    low, high = (abs(cie_lightness(sequential(share, theme)) - paper) for share in (0, 1))
    assert high > low + 50
