"""Draw two samples and their difference side by side."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont

from .palette import THEMES, ThemeName

GAP = 8
LABEL_HEIGHT = 22
#: Small pictures are enlarged, without smoothing, to about this width.
WIDTH = 256
#: The largest height that pictures are enlarged to.
HEIGHT = 1024


def enlargement(height: int, width: int) -> int:
    """Return the factor by which a panel is enlarged."""
    return max(1, min(-(-WIDTH // width), HEIGHT // height))


def side_by_side(
    reference: torch.Tensor,
    other: torch.Tensor,
    gain: float,
    titles: tuple[str, str, str],
    theme: ThemeName = "light",
) -> torch.Tensor:
    """Return a picture of reference, other, and ``gain * |other - reference|`` side by side.

    Args:
        reference, other: ``[H, W, 3]``, from 0 (black) to 1 (white).
        gain: the factor for the difference.
        titles: the titles above the three panels.
        theme: colours for a light or a dark page.

    Returns:
        ``[LABEL_HEIGHT + H f, 3 W f + 2 GAP, 3]`` float32, with ``f`` the `enlargement`.
    """
    factor = enlargement(*reference.shape[:2])
    height, width = (factor * size for size in reference.shape[:2])
    picture = Image.new(
        "RGB", (3 * width + 2 * GAP, LABEL_HEIGHT + height), THEMES[theme].background
    )
    draw = ImageDraw.Draw(picture)
    panels = (reference, other, (other - reference).abs() * gain)
    for column, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left = column * (width + GAP)
        pixels = panel.nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
        shown = Image.fromarray(pixels.numpy()).resize((width, height), Image.Resampling.NEAREST)
        picture.paste(shown, (left, LABEL_HEIGHT))
        draw.text((left + 2, 3), title, fill=THEMES[theme].text, font=ImageFont.load_default(13))
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return values.view(picture.height, picture.width, 3).float().div(255)


def image_pixels(image: torch.Tensor) -> torch.Tensor:
    """Return an image ``[H, W, C]`` as ``[H, W, 3]`` float32 on the CPU."""
    image = image.detach().float().cpu()
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(-1, -1, 3)


def latent_pixels(
    reference: torch.Tensor, other: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two latents ``[C, H, W]`` or ``[C, T, H, W]`` as pictures ``[H, W, 3]``.

    The first three channels become colours. A video gives its middle frame. The range of the
    reference maps to 0 to 1 in both pictures.
    """
    wanted, given = (image_pixels(_frame(latent).movedim(0, -1)) for latent in (reference, other))
    low, high = wanted.nan_to_num(0.0).aminmax()
    scale = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    return (wanted - low) / scale, (given - low) / scale


def _frame(latent: torch.Tensor) -> torch.Tensor:
    while latent.dim() > 3:
        latent = latent[:, latent.shape[1] // 2]
    while latent.dim() < 3:
        latent = latent.unsqueeze(1)
    return latent
