"""A picture of layers: blocks across, kinds of layers down, and those outside of blocks below."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from ...text import printable
from .palette import Rgb, Theme, sequential

MARGIN = 24
ROW = 22
#: The approximate width of a panel. Deep models have narrower cells.
PANEL_WIDTH = 880
_CELL_WIDTHS = (14, 54)
#: Narrower cells have no room for a number.
NUMBER_WIDTH = 40
LEGEND_WIDTH, LEGEND_HEIGHT = 360, 14
# Each layer outside of blocks takes a row, so their number is limited.
_MOST_OUTSIDE = 24
_LONGEST_NAME = 56
_LONGEST_LINE = 160

_Font: TypeAlias = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True)
class Cell:
    """How one layer looks. ``fill`` None: hatched, because it is not known.

    ``letter`` fits into every cell, ``text`` only into wide ones; outside of blocks it is beside
    the cell.
    """

    fill: Rgb | None
    ink: Rgb = (0, 0, 0)
    letter: str = ""
    text: str = ""


@dataclass(frozen=True)
class Panel:
    """One list of blocks, with its layers by (kind of layer, block)."""

    title: str
    kinds: tuple[str, ...]
    blocks: int
    cells: Mapping[tuple[str, int], Cell]


class Sheet:
    """A picture in the making, drawn from top to bottom."""

    def __init__(self, theme: Theme, panels: Sequence[Panel], outside: Mapping[str, Cell]):
        self._theme = theme
        self._panels, self._outside = panels, outside
        names = [kind for panel in panels for kind in panel.kinds]
        names += list(outside)[:_MOST_OUTSIDE]
        small = _font(12)
        widths = (math.ceil(small.getlength(shown_name(name))) for name in names)
        self._labels = max(widths, default=0) + 10
        blocks = max((panel.blocks for panel in panels), default=1)
        low, high = _CELL_WIDTHS
        self._cell = min(high, max(low, PANEL_WIDTH // blocks))
        width = max(self._labels + blocks * self._cell, LEGEND_WIDTH + 240)
        self._width = 2 * MARGIN + width
        self._steps: list[Callable[[ImageDraw.ImageDraw], None]] = []
        self._y = MARGIN

    def heading(self, title: str, subtitle: str) -> None:
        """Write the title and a line below it, and make the picture wide enough for both."""
        theme = self._theme
        for text, size, colour, height in (
            (title, 20, theme.text, 28),
            (subtitle, 13, theme.muted, 30),
        ):
            font, line = _font(size), shown_name(text, _LONGEST_LINE)
            self._width = max(self._width, 2 * MARGIN + math.ceil(font.getlength(line)))
            self._text(MARGIN, self._y, line, font, colour)
            self._y += height

    def layers(self) -> None:
        """Draw all panels and the layers outside of blocks."""
        for panel in self._panels:
            self._panel(panel)
        if self._outside:
            self._draw_outside()

    def _panel(self, panel: Panel) -> None:
        """Draw one list of blocks."""
        left, small = MARGIN + self._labels, _font(12)
        self._text(MARGIN, self._y, shown_name(panel.title), _font(13), self._theme.text)
        every = 1 if self._cell >= 20 else 5
        for block in range(0, panel.blocks, every):
            centre = left + block * self._cell + self._cell / 2
            self._text(centre, self._y + 2, str(block), small, self._theme.muted, "ma")
        self._y += 20
        for kind in panel.kinds:
            label = shown_name(kind)
            self._text(left - 8, self._y + ROW / 2, label, small, self._theme.text, "rm")
            for block in range(panel.blocks):
                if (kind, block) in panel.cells:
                    self._draw_cell(left + block * self._cell, panel.cells[kind, block])
            self._y += ROW
        self._y += 16

    def _draw_outside(self) -> None:
        """Draw the layers outside of blocks, each with its text."""
        left, small, theme = MARGIN + self._labels, _font(12), self._theme
        self._text(MARGIN, self._y, "outside of the blocks", _font(13), theme.text)
        self._y += 20
        for name, cell in list(self._outside.items())[:_MOST_OUTSIDE]:
            self._text(left - 8, self._y + ROW / 2, shown_name(name), small, theme.text, "rm")
            self._draw_cell(left, cell)
            if self._cell < NUMBER_WIDTH or cell.letter:
                beside = left + self._cell + 8
                self._text(beside, self._y + ROW / 2, cell.text, small, theme.muted, "lm")
            self._y += ROW
        if len(self._outside) > _MOST_OUTSIDE:
            text = f"and {len(self._outside) - _MOST_OUTSIDE} more, not shown"
            self._text(left, self._y + 4, text, small, theme.muted)
            self._y += ROW
        self._y += 16

    def scale_legend(
        self, ticks: Sequence[str], *, is_logarithmic: bool, has_unknown: bool
    ) -> None:
        """Draw a scale of colours with evenly spaced ticks, and hatching for unknown layers."""
        left, top, small, theme = MARGIN + self._labels, self._y, _font(12), self._theme
        box = (left, top, left + LEGEND_WIDTH, top + LEGEND_HEIGHT)

        def draw_colours(draw: ImageDraw.ImageDraw) -> None:
            for x in range(LEGEND_WIDTH + 1):
                line = (left + x, top, left + x, top + LEGEND_HEIGHT)
                draw.line(line, sequential(x / LEGEND_WIDTH, theme))
            draw.rectangle(box, outline=theme.line)

        if ticks:
            self._steps.append(draw_colours)
            for number, text in enumerate(ticks):
                x = left + number / (len(ticks) - 1) * LEGEND_WIDTH
                self._text(x, top + LEGEND_HEIGHT + 3, text, small, theme.muted, "ma")
            if is_logarithmic:
                middle = top + LEGEND_HEIGHT / 2
                self._text(left - 10, middle, "log scale", small, theme.muted, "rm")
        if has_unknown:
            swatch = left + (LEGEND_WIDTH + 48 if ticks else 0)
            unknown = (swatch, top, swatch + 30, top + LEGEND_HEIGHT)
            self._steps.append(lambda draw: _hatch(draw, unknown, theme))
            self._text(swatch + 38, top + LEGEND_HEIGHT / 2, "unknown", small, theme.text, "lm")
        self._y += LEGEND_HEIGHT + 22

    def swatches(self, cells: Mapping[str, Cell]) -> None:
        """Draw a legend of named cells, in as many rows as they need."""
        x, small = MARGIN, _font(12)
        for name, cell in cells.items():
            width = math.ceil(small.getlength(name)) + ROW + 26
            if x > MARGIN and x + width > self._width - MARGIN:
                x, self._y = MARGIN, self._y + ROW + 4
            self._draw_cell(x, cell, ROW)
            self._text(x + ROW + 6, self._y + ROW / 2, name, small, self._theme.text, "lm")
            x += width
        self._y += ROW + 8

    def picture(self) -> Image.Image:
        """Return the picture."""
        size = (self._width, self._y + MARGIN - 8)
        picture = Image.new("RGB", size, self._theme.background)
        draw = ImageDraw.Draw(picture)
        for step in self._steps:
            step(draw)
        return picture

    def _draw_cell(self, left: int, cell: Cell, width: int = 0) -> None:
        width = width or self._cell
        theme = self._theme
        box = (left, self._y, left + width - 2, self._y + ROW - 2)
        if cell.fill is None:
            self._steps.append(lambda draw: _hatch(draw, box, theme))
            return
        self._steps.append(lambda draw: draw.rectangle(box, cell.fill, theme.line))
        text = cell.letter or (cell.text if width >= NUMBER_WIDTH else "")
        if text:
            middle = (left + width / 2 - 1, self._y + ROW / 2 - 1)
            self._text(*middle, text, _font(12), cell.ink, "mm")

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


def shown_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """Return a name as one line of limited length, without its middle if it is too long."""
    line = printable(name).replace("\n", "\\n").replace("\t", "\\t")
    if len(line) <= longest:
        return line
    half = (longest - 1) // 2
    return f"{line[:half]}…{line[-half:]}"


def _hatch(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], theme: Theme) -> None:
    """Fill a box with diagonal lines."""
    left, top, right, bottom = box
    draw.rectangle(box, theme.hatch_ground, theme.line)
    for start in range(left - (bottom - top), right, 6):
        first = max(start, left)
        last = min(start + bottom - top, right)
        if first < last:
            ends = (first, bottom - (first - start), last, bottom - (last - start))
            draw.line(ends, theme.hatch)


def _font(size: int) -> _Font:
    return ImageFont.load_default(size)
