"""The map of formats and its themes."""

from __future__ import annotations

import numpy as np
import pytest
from nvfp4_foundry.quant.reports.pictures.layer_map import draw_layer_map
from nvfp4_foundry.quant.reports.pictures.palette import THEMES, ThemeName, format_colours
from nvfp4_foundry.quant.reports.pictures.sheet import shown_name

NAMES = [f"blocks.{block}.{row}" for block in range(12) for row in ("q", "k")] + ["head"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_format_covers_its_cells(theme: ThemeName) -> None:
    formats = {n: "bf16" if n == "head" else "nvfp4" if "q" in n else "mxfp8" for n in NAMES}
    picture = draw_layer_map(formats, dict.fromkeys(NAMES, (64, 64)), "title", theme=theme)
    pixels = np.asarray(picture).reshape(-1, 3)
    counts = {
        name: int((pixels == colour.fill).all(1).sum())
        for name, colour in format_colours(formats.values()).items()
    }
    assert counts["nvfp4"] > 12 * 150 and counts["mxfp8"] > 12 * 150
    assert 100 < counts["bf16"] < counts["nvfp4"] / 3
    corner = picture.getpixel((0, 0))
    assert corner == THEMES[theme].background and picture.mode == "RGB"


def test_names_are_one_line_of_limited_length() -> None:
    assert shown_name("a\nb\x1b\u202e") == "a\\nb\\u001b\\u202e"
    assert len(shown_name("x" * 300)) <= 56
    draw_layer_map({"\u202e\n" * 99: "mine"}, {}, "t\nt" * 200)
