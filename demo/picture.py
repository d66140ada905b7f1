"""Draw the demo's picture, rows of digits with labels, with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL = 48
GAP = 6
GROUP_GAP = 18
MARGIN = 20
LABEL_WIDTH = 250
TITLE_HEIGHT = 58

_BACKGROUND = (18, 20, 24)
_TEXT = (236, 238, 242)
_MUTED = (150, 156, 166)
_ABOVE = (255, 122, 64)
_BELOW = (72, 156, 255)


@dataclass(frozen=True)
class Row:
    """One row of the picture.

    Attributes:
        title: the label of the row.
        note: a smaller second line.
        images: float [N, 8, 8], from 0 (black) to 1 (white), or from -1 to 1 for a difference.
        is_difference: whether to colour by sign: orange above zero, blue below.
    """

    title: str
    note: str
    images: Tensor
    is_difference: bool = False


def picture_size(rows: Sequence[Row]) -> tuple[int, int]:
    """Return the width and height, in pixels, of the picture that `draw_rows` draws."""
    columns = max(len(row.images) for row in rows)
    width = 2 * MARGIN + LABEL_WIDTH + columns * (CELL + GAP) - GAP
    return width, MARGIN + _tops(rows)[-1] + CELL


def draw_rows(title: str, subtitle: str, rows: Sequence[Row]) -> Image.Image:
    """Draw rows of images below each other, with labels on the left.

    Pixels are enlarged without smoothing, so an error of one pixel stays one pixel.
    """
    picture = Image.new("RGB", picture_size(rows), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN - 4), title, fill=_TEXT, font=_font(20))
    draw.text((MARGIN, MARGIN + 25), subtitle, fill=_MUTED, font=_font(13))
    for row, top in zip(rows, _tops(rows), strict=True):
        middle = top + CELL // 2
        if row.title:
            draw.text((MARGIN, middle - 17), row.title, fill=_TEXT, font=_font(15))
        draw.text((MARGIN, middle + (3 if row.title else -7)), row.note, _MUTED, _font(12))
        for column, image in enumerate(row.images):
            left = MARGIN + LABEL_WIDTH + column * (CELL + GAP)
            picture.paste(_enlarged(image, row.is_difference), (left, top))
    return picture


def _tops(rows: Sequence[Row]) -> list[int]:
    """Return the top of each row, in pixels. A difference is close to the row above it."""
    tops = [MARGIN + TITLE_HEIGHT]
    for row in rows[1:]:
        tops.append(tops[-1] + CELL + (GAP if row.is_difference else GROUP_GAP))
    return tops


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _enlarged(image: Tensor, is_difference: bool) -> Image.Image:
    values = image.detach().float().cpu().numpy()[..., None]
    if is_difference:
        zero = np.array(_BACKGROUND, dtype=np.float32) + 12
        strength = np.abs(values).clip(0, 1)
        colour = np.where(values > 0, np.array(_ABOVE), np.array(_BELOW))
        pixels = zero + strength * (colour - zero)
    else:
        pixels = np.repeat(values.clip(0, 1) * 255, 3, axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8)).resize(
        (CELL, CELL), Image.Resampling.NEAREST
    )
