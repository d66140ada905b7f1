"""The colours of all pictures and maps: the same as those of ``web/view/palette.js``.

Both palettes are told apart by lightness alone, so they work without colour vision and in print;
formats also have letters. Colours are given in OKLCH (Björn Ottosson, "A perceptual color space for
image processing", 2020) with the CIE lightness they must have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

Rgb = tuple[int, int, int]
ThemeName = Literal["light", "dark"]

STEPS = 64
_LIGHTEST, _DARKEST = 96.0, 22.0
# Light ink reads better on colours darker than this.
_INK_LIGHTNESS = 58.0


@dataclass(frozen=True)
class Theme:
    """What is drawn around the data. ``curve``, ``mark`` and ``other`` are lines and points."""

    is_dark: bool
    background: Rgb
    text: Rgb
    muted: Rgb
    line: Rgb
    grid: Rgb
    hatch: Rgb
    hatch_ground: Rgb
    curve: Rgb
    mark: Rgb
    other: Rgb


LIGHT = Theme(
    is_dark=False,
    background=(255, 255, 255),
    text=(28, 30, 36),
    muted=(95, 102, 115),
    line=(203, 207, 214),
    grid=(228, 231, 236),
    hatch=(150, 154, 162),
    hatch_ground=(232, 233, 236),
    curve=(11, 98, 214),
    mark=(184, 64, 15),
    other=(95, 102, 115),
)
DARK = Theme(
    is_dark=True,
    background=(23, 24, 28),
    text=(230, 232, 236),
    muted=(162, 168, 179),
    line=(59, 62, 71),
    grid=(42, 45, 52),
    hatch=(104, 109, 120),
    hatch_ground=(46, 49, 56),
    curve=(77, 163, 255),
    mark=(255, 143, 107),
    other=(162, 168, 179),
)
THEMES: Mapping[ThemeName, Theme] = {"light": LIGHT, "dark": DARK}


@dataclass(frozen=True)
class FormatColour:
    """The colour of a format, its letter, and the colour of the letter."""

    letter: str
    fill: Rgb
    ink: Rgb


# Letter, CIE lightness, chroma and hue of each format.
_FORMATS: Mapping[str, tuple[str, float, float, float]] = {
    "nvfp4_smooth": ("S", 24.0, 0.1, 255.0),
    "convrot_w4a4": ("C", 28.0, 0.1, 300.0),
    "convrot_w4a8": ("D", 33.0, 0.13, 310.0),
    "asym_w4a8_int8": ("Y", 37.0, 0.13, 280.0),
    "nvfp4": ("N", 41.0, 0.13, 255.0),
    "int8_tensorwise": ("I", 45.5, 0.12, 20.0),
    "int8_rowwise": ("R", 50.0, 0.12, 0.0),
    "nvfp4_w4a16": ("W", 54.5, 0.09, 210.0),
    "int8_convrot": ("V", 59.0, 0.13, 345.0),
    "keep": ("K", 63.5, 0.012, 250.0),
    "mxfp8": ("M", 68.0, 0.13, 145.0),
    "float8_e5m2": ("E", 72.5, 0.12, 45.0),
    "float8_e4m3fn": ("F", 77.0, 0.13, 75.0),
    "float8_e4m3fn_w8a16": ("A", 81.0, 0.11, 95.0),
    "fp32": ("3", 85.0, 0.03, 130.0),
    "bf16": ("B", 89.0, 0.05, 215.0),
    "fp16": ("H", 93.0, 0.04, 180.0),
}
# For formats that are not in the list.
_SPARE_LIGHTNESS = (30.5, 70.0, 83.0, 20.0, 57.0, 75.0, 47.5)
_SPARE_LETTERS = "GJLOPQTUXZ"


def sequential(share: float, theme: Theme = LIGHT) -> Rgb:
    """Return the colour of a share of a scale, from 0 (low) to 1 (high).

    High values stand out from the background: dark on a light theme, light on a dark one.
    """
    at = math.floor(min(1.0, max(0.0, share)) * (STEPS - 1) + 0.5)
    return _sequence()[STEPS - 1 - at if theme.is_dark else at]


def format_colours(formats: Iterable[str]) -> dict[str, FormatColour]:
    """Return the colours of formats by name; those without a colour of their own get a spare."""
    found: dict[str, FormatColour] = {}
    spare = 0
    for name in dict.fromkeys(formats):
        entry = _FORMATS.get(name)
        if entry is None:
            letter = _SPARE_LETTERS[spare % len(_SPARE_LETTERS)]
            lightness = _SPARE_LIGHTNESS[spare % len(_SPARE_LIGHTNESS)]
            entry = (letter, lightness, 0.09, (spare * 137.5 + 160) % 360)
            spare += 1
        fill = _with_lightness(*entry[1:])
        found[name] = FormatColour(entry[0], fill, ink_on(fill))
    return found


def ink_on(colour: Rgb) -> Rgb:
    """Return black or white, whichever reads better on a colour."""
    return (17, 17, 17) if cie_lightness(colour) > _INK_LIGHTNESS else (255, 255, 255)


def cie_lightness(colour: tuple[float, float, float]) -> float:
    """Return the CIE L* of an sRGB colour, 0 (black) to 100 (white)."""
    red, green, blue = map(_linear, colour)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    if luminance > 216 / 24389:
        return 116 * luminance ** (1 / 3) - 16
    return luminance * 24389 / 27


@cache
def _sequence() -> tuple[Rgb, ...]:
    """Return colours from cream over orange and magenta to deep purple, evenly darker."""
    colours = []
    for step in range(STEPS):
        t = step / (STEPS - 1)
        hue = 100 - 145 * t**0.9
        chroma = 0.045 + 0.125 * math.sin(math.pi * min(1.0, t * 0.9 + 0.08)) ** 1.1
        colours.append(_with_lightness(_LIGHTEST + (_DARKEST - _LIGHTEST) * t, chroma, hue))
    return tuple(colours)


@cache
def _with_lightness(wanted: float, chroma: float, hue: float) -> Rgb:
    """Return the colour of this chroma and hue that has a CIE lightness, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if cie_lightness(_oklch(middle, chroma, hue)) < wanted:
            low = middle
        else:
            high = middle
    red, green, blue = _oklch(low, chroma, hue)
    return math.floor(red + 0.5), math.floor(green + 0.5), math.floor(blue + 0.5)


def _oklch(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """Return the sRGB colour, 0 to 255, of an OKLCH colour with the hue in degrees."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3
    return (
        _encoded(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
        _encoded(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
        _encoded(-0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short),
    )


def _encoded(value: float) -> float:
    """Return a linear value from 0 to 1 in sRGB, 0 to 255."""
    v = min(1.0, max(0.0, value))
    return 255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055)


def _linear(value: float) -> float:
    """Return an sRGB value from 0 to 255 in linear light, 0 to 1."""
    v = value / 255
    return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
