"""Draw the frame of a chart with Pillow: scales, round ticks, axes with labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from .palette import Rgb, Theme

#: Charts are drawn larger by this factor and scaled down, which smooths lines and letters.
OVERSAMPLING = 2


@dataclass(frozen=True)
class Scale:
    """A linear scale: values ``low`` to ``high`` on pixels ``start`` to ``end`` (either order)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True)
class Axis:
    """A scale with its ticks, the text of a tick, and a label."""

    scale: Scale
    ticks: Sequence[float]
    text: Callable[[float], str]
    label: str


def round_ticks(low: float, high: float, about: int = 7) -> list[float]:
    """Return about ``about`` multiples of 1, 2 or 5 times a power of ten within a range."""
    rough = (high - low) / max(1, about)
    if rough <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def tick_decimals(ticks: Sequence[float]) -> int:
    """Return the number of decimals that distinguish the ticks, or that a single tick needs."""
    if len(ticks) < 2:
        written = f"{ticks[0]:.9g}" if ticks else ""
        return len(written.partition(".")[2]) if "e" not in written else 0
    step = min(b - a for a, b in pairwise(ticks))
    return max(0, -math.floor(math.log10(step) + 1e-9))


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return Pillow's default font at a size in pixels of the finished chart."""
    return ImageFont.load_default(size * OVERSAMPLING)


def new_canvas(width: int, height: int, theme: Theme) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an enlarged empty picture and its pen; `finished` scales it to its size."""
    canvas = Image.new("RGB", (width * OVERSAMPLING, height * OVERSAMPLING), theme.background)
    return canvas, ImageDraw.Draw(canvas)


def finished(canvas: Image.Image) -> Image.Image:
    """Return the canvas scaled down to the requested size."""
    size = (canvas.width // OVERSAMPLING, canvas.height // OVERSAMPLING)
    return canvas.resize(size, Image.Resampling.LANCZOS)


def draw_axes(draw: ImageDraw.ImageDraw, x: Axis, y: Axis, theme: Theme) -> None:
    """Draw a grid, tick labels at the left and below, and the labels of both axes."""
    left, right, bottom, top = x.scale.start, x.scale.end, y.scale.start, y.scale.end
    width, gap = OVERSAMPLING, 8 * OVERSAMPLING
    for value in x.ticks:
        at = x.scale(value)
        draw.line([(at, bottom), (at, top)], theme.grid, width)
        draw.text((at, bottom + gap), x.text(value), theme.muted, font(14), anchor="mt")
    for value in y.ticks:
        at = y.scale(value)
        draw.line([(left, at), (right, at)], theme.grid, width)
        draw.text((left - gap, at), y.text(value), theme.muted, font(14), anchor="rm")
    draw.line([(left, top), (left, bottom), (right, bottom)], theme.muted, width)
    draw.text(((left + right) / 2, bottom + 4 * gap), x.label, theme.text, font(15), anchor="mt")
    draw.text((left, top - gap), y.label, theme.text, font(15), anchor="lb")


def draw_dot(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    radius: float,
    fill: Rgb,
    outline: Rgb,
) -> None:
    """Draw a filled circle with a rim, radius in pixels of the finished chart."""
    r = radius * OVERSAMPLING
    draw.ellipse((x - r, y - r, x + r, y + r), fill, outline, width=2 * OVERSAMPLING)
