"""Draw the frontier of a mix: error over size, with this mix and the preset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ...derive import Mix, MixPoint
from .chart import (
    OVERSAMPLING,
    Axis,
    Scale,
    draw_axes,
    draw_dot,
    finished,
    font,
    new_canvas,
    round_ticks,
    tick_decimals,
)
from .palette import THEMES, Rgb, Theme, ThemeName

WIDTH, HEIGHT = 1000, 640
_LEFT, _RIGHT, _TOP, _BOTTOM = 86, 36, 112, 78


@dataclass(frozen=True)
class _Unit:
    """The unit of sizes: 10^9 bytes, or 10^6 bytes if all sizes are smaller than 10^9."""

    name: str
    bytes: float

    @classmethod
    def of(cls, points: Sequence[MixPoint]) -> _Unit:
        is_large = max(point.bytes for point in points) >= 1e9
        return cls("GB", 1e9) if is_large else cls("MB", 1e6)


@dataclass(frozen=True)
class _Mark:
    """A point with a label, in pixels of the canvas."""

    x: float
    y: float
    label: str
    colour: Rgb


def draw_frontier(mix: Mix, theme: ThemeName = "light") -> Image.Image:
    """Return the frontier as an RGB picture of `WIDTH` by `HEIGHT`.

    The x axis shows the size and covers the range of the points. The y axis shows the predicted
    error in percent and starts at zero.
    """
    colours = THEMES[theme]
    canvas, draw = new_canvas(WIDTH, HEIGHT, colours)
    points = [*mix.frontier, mix.point, mix.preset]
    unit = _Unit.of(points)
    x, y = _size_axis(points, unit), _error_axis(points, mix.has_latents)
    draw_axes(draw, x, y, colours)
    curve = [(x.scale(p.bytes / unit.bytes), y.scale(p.error * 100)) for p in mix.frontier]
    if len(curve) > 1:
        draw.line(curve, colours.curve, 3 * OVERSAMPLING, joint="curve")
    for at in curve:
        draw_dot(draw, *at, 5, colours.curve, colours.background)
    marks = [
        _Mark(x.scale(p.bytes / unit.bytes), y.scale(p.error * 100), _label(p, name, unit), colour)
        for p, name, colour in (
            (mix.point, "this mix", colours.mark),
            (mix.preset, f"preset {mix.preset_name}", colours.other),
        )
    ]
    for mark in reversed(marks):
        draw_dot(draw, mark.x, mark.y, 8, mark.colour, colours.background)
    _draw_labels(draw, marks)
    _draw_title(draw, mix, colours)
    return finished(canvas)


def _label(point: MixPoint, name: str, unit: _Unit) -> str:
    return f"{name}\n{point.bytes / unit.bytes:.2f} {unit.name}, {point.error:.2%}"


def _size_axis(points: Sequence[MixPoint], unit: _Unit) -> Axis:
    sizes = [point.bytes / unit.bytes for point in points]
    low, high = min(sizes), max(sizes)
    margin = (high - low) * 0.05 or high * 0.05
    ticks = round_ticks(low - margin, high + margin, 9)
    decimals = tick_decimals(ticks)
    start, end = _LEFT * OVERSAMPLING, (WIDTH - _RIGHT) * OVERSAMPLING
    scale = Scale(low - margin, high + margin, start, end)
    return Axis(scale, ticks, lambda v: f"{v:.{decimals}f}", f"file size, {unit.name}")


def _error_axis(points: Sequence[MixPoint], of_output: bool) -> Axis:
    # leaves room for the label of the highest point
    high = max(point.error for point in points) * 100 * 1.2 or 1.0
    ticks = round_ticks(0.0, high, 7)
    decimals = tick_decimals(ticks)
    start, end = (HEIGHT - _BOTTOM) * OVERSAMPLING, _TOP * OVERSAMPLING
    what = "predicted error of the model's output" if of_output else "summed error of the layers"
    return Axis(Scale(0.0, high, start, end), ticks, lambda v: f"{v:.{decimals}f}%", what)


def _draw_labels(draw: ImageDraw.ImageDraw, marks: Sequence[_Mark]) -> None:
    """Write a label above each mark, to its right if there is room.

    The curve falls to the right, so it does not cross a label there. A label at the left must be
    higher. A label that would hide an earlier one is placed above it.
    """
    gap = 14 * OVERSAMPLING
    drawn: list[tuple[float, float, float, float]] = []
    for mark in marks:
        _, _, width, height = draw.multiline_textbbox((0, 0), mark.label, font(16))
        is_right = mark.x + gap + width < (WIDTH - 8) * OVERSAMPLING
        left = mark.x + gap if is_right else mark.x - width
        top = mark.y - (gap if is_right else 3 * gap) - height
        for other in drawn:
            if left < other[2] and other[0] < left + width and top < other[3] + gap / 2:
                top = min(top, other[1] - gap / 2 - height)
        align = "left" if is_right else "right"
        draw.multiline_text((left, top), mark.label, mark.colour, font(16), align=align)
        drawn.append((left, top, left + width, top + height))


def _draw_title(draw: ImageDraw.ImageDraw, mix: Mix, theme: Theme) -> None:
    left = 24 * OVERSAMPLING
    title = f"Size and error: {mix.plan.architecture.title}"
    formats = ", ".join(f"{count} {name}" for name, count in mix.point.counts.items())
    draw.text((left, 18 * OVERSAMPLING), title, theme.text, font(22))
    draw.text(
        (left, 50 * OVERSAMPLING),
        f"this mix (budget {mix.budget}): {formats}",
        theme.muted,
        font(15),
    )
