"""Draw the formats of a model's Linear layers, by block and kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from PIL import Image

from .arranged import arranged
from .palette import THEMES, ThemeName, format_colours
from .sheet import Cell, Sheet


def draw_layer_map(
    formats: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    title: str,
    subtitle: str = "",
    theme: ThemeName = "light",
) -> Image.Image:
    """Return a picture of the format of each layer, RGB.

    Args:
        formats: the format of each Linear layer.
        shapes: the shape of its weight.
        title: the heading, such as the name of the file.
        subtitle: a line below it.
        theme: colours for a light or a dark page.
    """
    counts = Counter(formats.values())
    looks = {
        name: Cell(colour.fill, colour.ink, colour.letter, name)
        for name, colour in format_colours(name for name, _ in counts.most_common()).items()
    }
    cells = {layer: looks[name] for layer, name in formats.items()}
    sheet = Sheet(THEMES[theme], *arranged(cells, shapes))
    sheet.heading(title, subtitle)
    sheet.layers()
    sheet.swatches({f"{name} ({counts[name]})": look for name, look in looks.items()})
    return sheet.picture()
