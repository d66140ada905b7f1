"""Draw the icon and the banner: ``python -m tests.workflows.mark``.

The registry takes square icons of at most 400 x 400 pixels and banners of 21 to 9. The mark is an
ingot whose face is a layer map: four rows of cells in the colours of the formats, hot at one edge.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from tests.workflows import art

IMAGES = Path(__file__).parents[2] / "docs" / "images"
ICON = 400
BANNER = (1260, 540)

# N: NVFP4, F: float8, B: bf16, H: glowing metal
_CELLS = ("FNNNH", "NNNFH", "NNFNH", "BNNNH")
_COLOURS = {
    "N": art.FORMATS["nvfp4"],
    "F": art.FORMATS["float8_e4m3fn"],
    "B": art.FORMATS["bf16"],
    "H": art.ACCENT,
}
_SLANT = 0.16


def draw_icon() -> Image.Image:
    """Return the icon."""
    picture, draw = art.canvas(ICON, ICON, art.PANEL)
    _draw_ingot(draw, (44, 80), 312)
    return art.finished(picture)


def draw_banner() -> Image.Image:
    """Return the banner."""
    width, height = BANNER
    picture, draw = art.canvas(width, height)
    _draw_ingot(draw, (84, 154), 300)
    art.write(draw, (460, 162), "NVFP4 Foundry", 84)
    art.write(draw, (464, 274), "Calibrated, mixed-precision checkpoints", 34, art.MUTED)
    art.write(draw, (464, 320), "made in ComfyUI, loaded by ComfyUI", 34, art.MUTED)
    return art.finished(picture)


def _draw_ingot(draw: ImageDraw.ImageDraw, at: tuple[float, float], width: float) -> None:
    """Draw the mark with its top left corner at a place: rows that grow like a cast bar."""
    rows, columns = len(_CELLS), len(_CELLS[0])
    pitch = width / (columns * (1 + _SLANT))
    gap = pitch * 0.09
    grown = width * _SLANT / (1 + _SLANT)
    for row, cells in enumerate(_CELLS):
        share = row / (rows - 1)
        left = at[0] + grown / 2 * (1 - share)
        size = (width - grown * (1 - share)) / columns
        for column, cell in enumerate(cells):
            x, y = left + column * size, at[1] + row * pitch * 1.12
            place = (x + gap, y + gap, x + size - gap, y + pitch * 1.12 - gap)
            art.box(draw, place, _COLOURS[cell], pitch * 0.16)


def main() -> None:
    """Write both pictures."""
    draw_icon().save(IMAGES / "icon.png", optimize=True)
    draw_banner().save(IMAGES / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
