"""Draw a heat map of the error from quantizing each layer, by kind of layer and block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from PIL import Image, ImageDraw, ImageFont

from ...planning.inventory import inventory_of
from ...sensitivity.artefact import Sensitivity
from ...sources.base import TensorInfo

MARGIN = 24
ROW = 22
#: The approximate width of a panel. Deep models have narrower cells.
PANEL_WIDTH = 880
_CELL_WIDTHS = (14, 54)
# Narrower cells have no room for their number.
_NUMBER_WIDTH = 40
_LEGEND_WIDTH, _LEGEND_HEIGHT = 360, 14
# Each layer outside of blocks takes a row, so their number is limited.
_MOST_OUTSIDE = 24
# Above this ratio a linear scale would show only the worst layers.
_LINEAR_RATIO = 8.0

_PAPER, _TEXT, _MUTED, _LINE = (255, 255, 255), (28, 30, 36), (104, 110, 120), (203, 207, 214)
_HATCH, _HATCH_GROUND = (150, 154, 162), (232, 233, 236)
# Evenly from light to dark, so that the map is readable without colour vision.
_COLOURS = (
    (255, 250, 222), (253, 220, 154), (250, 176, 96), (240, 120, 72), (204, 66, 84),
    (140, 38, 98), (70, 18, 78),
)  # fmt: skip

_Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True)
class _Panel:
    """One list of blocks, with values by (kind of layer, block); None means unknown."""

    title: str
    kinds: tuple[str, ...]
    blocks: int
    values: dict[tuple[str, int], float | None]


@dataclass(frozen=True)
class _Scale:
    """Map from values to colours, linear or logarithmic."""

    low: float
    high: float

    @property
    def is_logarithmic(self) -> bool:
        return self.low > 0 and self.high / self.low > _LINEAR_RATIO

    def position(self, value: float) -> float:
        """Return where a value lies between the lightest (0) and the darkest (1) colour."""
        low, high = self.low, self.high
        if self.is_logarithmic:
            value, low, high = (math.log(max(v, self.low)) for v in (value, low, high))
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5

    def value(self, position: float) -> float:
        """Return the value at a position."""
        if self.is_logarithmic:
            return self.low * (self.high / self.low) ** position
        return self.low + (self.high - self.low) * position


def draw_sensitivity(sensitivity: Sensitivity, format_name: str = "nvfp4") -> Image.Image:
    """Return a heat map of the error from quantizing each layer to one format.

    The colour shows the shift of the model's output if that was measured, otherwise the output
    error of the layer (both are the square root of `Sensitivity.cost`). Unknown layers are hatched.
    Layers that cannot take the format are left out. Layers outside of blocks follow below.
    """
    values = _values(sensitivity, format_name)
    panels, outside = _arrange(sensitivity, values)
    known = [value for value in values.values() if value is not None]
    scale = _Scale(min(known, default=0.0), max(known, default=0.0))
    sheet = _Sheet(scale, panels, outside)
    sheet.heading(*_headings(sensitivity, format_name, values))
    for panel in panels:
        sheet.panel(panel)
    sheet.outside(outside)
    sheet.legend(bool(known), len(known) < len(values))
    return sheet.picture()


def picture_tensor(picture: Image.Image) -> torch.Tensor:
    """Return a picture as float32 ``[1, H, W, 3]``, 0 to 1."""
    values = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return values.view(1, picture.height, picture.width, 3).float().div(255)


def _values(sensitivity: Sensitivity, format_name: str) -> dict[str, float | None]:
    values = {}
    for name, layer in sensitivity.layers.items():
        if format_name in layer.candidates:
            cost = sensitivity.cost(name, format_name)
            values[name] = None if cost is None else math.sqrt(cost)
    return values


def _arrange(
    sensitivity: Sensitivity, values: dict[str, float | None]
) -> tuple[list[_Panel], dict[str, float | None]]:
    """Return the layers in lists of blocks, and those outside of any block."""
    infos = (
        TensorInfo(f"{name}.weight", shape, torch.bfloat16)
        for name, shape in sensitivity.fingerprint.shapes.items()
    )
    layers = inventory_of(infos).layers
    grids: dict[str, dict[tuple[str, int], float | None]] = {}
    counts: dict[str, int] = {}
    outside: dict[str, float | None] = {}
    for name, value in values.items():
        block = layers[name].block if name in layers else None
        if block is None:
            outside[name] = value
            continue
        kind = name.removeprefix(f"{block.container}.{block.index}.")
        grids.setdefault(block.container, {})[kind, block.index] = value
        counts[block.container] = block.count
    panels = [
        _Panel(container, tuple(dict.fromkeys(k for k, _ in grid)), counts[container], grid)
        for container, grid in grids.items()
    ]
    return panels, outside


def _headings(
    sensitivity: Sensitivity, format_name: str, values: dict[str, float | None]
) -> tuple[str, str]:
    if sensitivity.has_latents:
        latent = "sampled" if sensitivity.is_of_samplings else "denoised"
        what = f"shift of the {latent} latent if one layer is in {format_name}"
    else:
        what = f"error of each layer's output in {format_name}"
    worst = sorted((v, n) for n, v in values.items() if v is not None)[::-1][:3]
    named = ", ".join(f"{name} {_percent(value)}" for value, name in worst)
    return f"Sensitivity: {what}", f"rounding {sensitivity.rounding}; worst: {named or 'unknown'}"


class _Sheet:
    """A picture in the making, drawn from top to bottom."""

    def __init__(self, scale: _Scale, panels: Sequence[_Panel], outside: Iterable[str]):
        self._scale = scale
        names = [kind for panel in panels for kind in panel.kinds]
        names += list(outside)[:_MOST_OUTSIDE]
        small = _font(12)
        self._labels = max((math.ceil(small.getlength(name)) for name in names), default=0) + 10
        blocks = max((panel.blocks for panel in panels), default=1)
        low, high = _CELL_WIDTHS
        self._cell = min(high, max(low, PANEL_WIDTH // blocks))
        width = max(self._labels + blocks * self._cell, _LEGEND_WIDTH + 240)
        self._width = 2 * MARGIN + width
        self._steps: list[Callable[[ImageDraw.ImageDraw], None]] = []
        self._y = MARGIN

    def heading(self, title: str, subtitle: str) -> None:
        """Write the title and a line below it, and make the picture wide enough for both."""
        lines = ((title, 20, _TEXT, 28), (subtitle, 13, _MUTED, 30))
        for text, size, colour, height in lines:
            font = _font(size)
            self._width = max(self._width, 2 * MARGIN + math.ceil(font.getlength(text)))
            self._text(MARGIN, self._y, text, font, colour)
            self._y += height

    def panel(self, panel: _Panel) -> None:
        """Draw one list of blocks."""
        left, small = MARGIN + self._labels, _font(12)
        self._text(MARGIN, self._y, panel.title, _font(13), _TEXT)
        every = 1 if self._cell >= 20 else 5
        for block in range(0, panel.blocks, every):
            centre = left + block * self._cell + self._cell / 2
            self._text(centre, self._y + 2, str(block), small, _MUTED, "ma")
        self._y += 20
        for kind in panel.kinds:
            self._text(left - 8, self._y + ROW / 2, kind, small, _TEXT, "rm")
            for block in range(panel.blocks):
                if (kind, block) in panel.values:
                    self._draw_cell(left + block * self._cell, panel.values[kind, block])
            self._y += ROW
        self._y += 16

    def outside(self, layers: dict[str, float | None]) -> None:
        """Draw the layers outside of blocks, each with its value."""
        if not layers:
            return
        left, small = MARGIN + self._labels, _font(12)
        self._text(MARGIN, self._y, "outside of the blocks", _font(13), _TEXT)
        self._y += 20
        for name, value in list(layers.items())[:_MOST_OUTSIDE]:
            self._text(left - 8, self._y + ROW / 2, name, small, _TEXT, "rm")
            self._draw_cell(left, value)
            if self._cell < _NUMBER_WIDTH:
                text = "unknown" if value is None else _percent(value)
                self._text(left + self._cell + 8, self._y + ROW / 2, text, small, _MUTED, "lm")
            self._y += ROW
        if len(layers) > _MOST_OUTSIDE:
            text = f"and {len(layers) - _MOST_OUTSIDE} more, not shown"
            self._text(left, self._y + 4, text, small, _MUTED)
            self._y += ROW
        self._y += 16

    def legend(self, has_known: bool, has_unknown: bool) -> None:
        """Draw the legend: colours with values, and hatching for unknown layers."""
        left, top, small, scale = MARGIN + self._labels, self._y, _font(12), self._scale
        box = (left, top, left + _LEGEND_WIDTH, top + _LEGEND_HEIGHT)

        def draw_colours(draw: ImageDraw.ImageDraw) -> None:
            for x in range(_LEGEND_WIDTH + 1):
                line = (left + x, top, left + x, top + _LEGEND_HEIGHT)
                draw.line(line, _colour(x / _LEGEND_WIDTH))
            draw.rectangle(box, outline=_LINE)

        if has_known:
            self._steps.append(draw_colours)
            for position in (0.0, 0.25, 0.5, 0.75, 1.0):
                x = left + position * _LEGEND_WIDTH
                text = _percent(scale.value(position))
                self._text(x, top + _LEGEND_HEIGHT + 3, text, small, _MUTED, "ma")
            if scale.is_logarithmic:
                self._text(left - 10, top + _LEGEND_HEIGHT / 2, "log scale", small, _MUTED, "rm")
        if has_unknown:
            swatch = left + (_LEGEND_WIDTH + 48 if has_known else 0)
            self._steps.append(
                lambda draw: _hatch(draw, (swatch, top, swatch + 30, top + _LEGEND_HEIGHT))
            )
            self._text(swatch + 38, top + _LEGEND_HEIGHT / 2, "unknown", small, _TEXT, "lm")
        self._y += _LEGEND_HEIGHT + 22

    def picture(self) -> Image.Image:
        """Return the picture."""
        picture = Image.new("RGB", (self._width, self._y + MARGIN - 8), _PAPER)
        draw = ImageDraw.Draw(picture)
        for step in self._steps:
            step(draw)
        return picture

    def _draw_cell(self, left: int, value: float | None) -> None:
        box = (left, self._y, left + self._cell - 2, self._y + ROW - 2)
        if value is None:
            self._steps.append(lambda draw: _hatch(draw, box))
            return
        position = self._scale.position(value)
        self._steps.append(lambda draw: draw.rectangle(box, _colour(position), _LINE))
        if self._cell >= _NUMBER_WIDTH:
            colour = _TEXT if position < 0.6 else _PAPER
            middle = (left + self._cell / 2 - 1, self._y + ROW / 2 - 1)
            self._text(*middle, _percent(value), _font(12), colour, "mm")

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        font: _Font,
        colour: tuple[int, ...],
        anchor: str = "la",
    ) -> None:
        self._steps.append(lambda draw: draw.text((x, y), text, colour, font, anchor))


def _hatch(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    """Fill a box with diagonal lines on grey."""
    left, top, right, bottom = box
    draw.rectangle(box, _HATCH_GROUND, _LINE)
    for start in range(left - (bottom - top), right, 6):
        first = max(start, left)
        last = min(start + bottom - top, right)
        if first < last:
            draw.line((first, bottom - (first - start), last, bottom - (last - start)), _HATCH)


def _colour(position: float) -> tuple[int, int, int]:
    """Return the colour at a position from 0 (light) to 1 (dark)."""
    scaled = position * (len(_COLOURS) - 1)
    index = min(int(scaled), len(_COLOURS) - 2)
    red, green, blue = (
        round(a + (b - a) * (scaled - index))
        for a, b in zip(_COLOURS[index], _COLOURS[index + 1], strict=True)
    )
    return red, green, blue


def _percent(value: float) -> str:
    """Return a value in percent with one or two significant decimals."""
    percent = 100 * value
    if percent >= 1:
        return f"{percent:.1f}%"
    return f"{percent:.2f}%" if percent >= 0.01 or percent == 0 else f"{percent:.0e}%"


def _font(size: int) -> _Font:
    return ImageFont.load_default(size)
