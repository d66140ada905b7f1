"""The look of the pictures: dark ground, the colours of the formats, Pillow's own font."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

GROUND, PANEL, TEXT, MUTED = (22, 25, 31), (34, 38, 47), (240, 243, 247), (150, 158, 170)
ACCENT = (255, 138, 61)
#: The colours of the layer map.
FORMATS = {
    "nvfp4": (36, 104, 196),
    "float8_e4m3fn": (236, 176, 84),
    "bf16": (196, 227, 240),
    "keep": (116, 122, 133),
}
#: From small to large errors or ranges.
HEAT = ((40, 44, 84), (98, 54, 132), (176, 66, 118), (232, 106, 74), (250, 190, 96))

#: Pictures are drawn larger by this factor and scaled down.
OVERSAMPLING = 2

Colour = tuple[int, int, int]


def font(size: float) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return the font at a size in pixels of the finished picture."""
    return ImageFont.load_default(size * OVERSAMPLING)


def canvas(
    width: int, height: int, ground: Colour = GROUND
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an enlarged empty picture and its pen."""
    picture = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING), ground)
    return picture, ImageDraw.Draw(picture)


def finished(picture: Image.Image) -> Image.Image:
    """Return the picture at its size."""
    size = (picture.width // OVERSAMPLING, picture.height // OVERSAMPLING)
    return picture.resize(size, Image.Resampling.LANCZOS)


def box(
    draw: ImageDraw.ImageDraw, place: tuple[float, float, float, float], fill: Colour, radius: float
) -> None:
    """Fill a rounded box: left, top, right, bottom in pixels of the finished picture."""
    scaled = tuple(round(edge * OVERSAMPLING) for edge in place)
    draw.rounded_rectangle(scaled, radius * OVERSAMPLING, fill)


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: float,
    fill: Colour = TEXT,
    anchor: str = "la",
) -> None:
    """Write text."""
    scaled = (at[0] * OVERSAMPLING, at[1] * OVERSAMPLING)
    draw.text(scaled, text, fill, font(size), anchor=anchor)


def heat(position: float) -> Colour:
    """Return the colour of a position from 0 to 1."""
    scaled = min(max(position, 0.0), 1.0) * (len(HEAT) - 1)
    low = min(int(scaled), len(HEAT) - 2)
    mixed = (
        round(a + (b - a) * (scaled - low)) for a, b in zip(HEAT[low], HEAT[low + 1], strict=True)
    )
    red, green, blue = mixed
    return red, green, blue
