"""Draw a heat map of the error from quantizing each layer, by kind of layer and block."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from PIL import Image

from ...sensitivity.artefact import Sensitivity
from .arranged import arranged
from .palette import THEMES, Theme, ThemeName, ink_on, sequential
from .sheet import Cell, Sheet

# Above this ratio a linear scale would show only the worst layers.
_LINEAR_RATIO = 8.0


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


def draw_sensitivity(
    sensitivity: Sensitivity, format_name: str = "nvfp4", theme: ThemeName = "light"
) -> Image.Image:
    """Return a heat map of the error from quantizing each layer to one format.

    The colour shows the shift of the model's output if that was measured, otherwise the output
    error of the layer (both are the square root of `Sensitivity.cost`). Unknown layers are hatched.
    Layers that cannot take the format are left out. Layers outside of blocks follow below.
    """
    values = _values(sensitivity, format_name)
    known = [value for value in values.values() if value is not None]
    scale = _Scale(min(known, default=0.0), max(known, default=0.0))
    colours = THEMES[theme]
    cells = {name: _cell(value, scale, colours) for name, value in values.items()}
    sheet = Sheet(colours, *arranged(cells, sensitivity.fingerprint.shapes))
    sheet.heading(*_headings(sensitivity, format_name, values))
    sheet.layers()
    ticks = [_percent(scale.value(share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    sheet.scale_legend(
        ticks if known else (),
        is_logarithmic=scale.is_logarithmic,
        has_unknown=len(known) < len(values),
    )
    return sheet.picture()


def _cell(value: float | None, scale: _Scale, theme: Theme) -> Cell:
    if value is None:
        return Cell(None, text="unknown")
    fill = sequential(scale.position(value), theme)
    return Cell(fill, ink_on(fill), text=_percent(value))


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


def _percent(value: float) -> str:
    """Return a value in percent with one or two significant decimals."""
    percent = 100 * value
    if percent >= 1:
        return f"{percent:.1f}%"
    return f"{percent:.2f}%" if percent >= 0.01 or percent == 0 else f"{percent:.0e}%"
