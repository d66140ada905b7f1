"""The task of the small Flux: 32x32 patches of scikit-image's pictures, and prompts that name them.

A prompt names the picture and the place in it, so both the text and the pooled text matter. The
pictures ship in scikit-image's wheel. They are in the public domain or under CC0, and the coins
have no known copyright restrictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tiny_flux import GRID, POOLED, TEXT
from torch import Tensor

#: Function of ``skimage.data``, and the factor by which the picture is made smaller.
PICTURES = {
    "astronaut": 3,
    "brick": 4,
    "camera": 3,
    "chelsea": 2,
    "clock": 2,
    "coffee": 3,
    "coins": 2,
    "grass": 4,
    "gravel": 4,
    "hubble_deep_field": 5,
    "retina": 8,
    "rocket": 3,
}
SIZE, PATCH, COLOURS = 32, 4, 3
#: The places are the cells of a grid with so many rows and columns.
PLACES = 4
MEAN, DEVIATION = 0.41, 0.24  # of the pixels of drawn patches
_TOKENS = 8
_SEED = 20260


@dataclass(frozen=True)
class Prompts:
    """Texts of equal length, and their pooled vectors.

    Attributes:
        tokens: float32 [B, 8, TEXT]. Zeros pad the words, as after a text encoder.
        pooled: float32 [B, POOLED], which only depends on the picture.
    """

    tokens: Tensor
    pooled: Tensor

    def dropped(self, where: Tensor) -> Prompts:
        """Return the prompts with an empty text at ``where``, bool [B]."""
        empty = empty_prompts(len(where))
        return Prompts(
            torch.where(where[:, None, None], empty.tokens, self.tokens),
            torch.where(where[:, None], empty.pooled, self.pooled),
        )


def load_pictures() -> list[Tensor]:
    """Return the pictures as float32 [3, H, W], 0 to 1, made smaller.

    Raises:
        ImportError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as missing:
        raise ImportError("install the pictures: pip install 'nvfp4-foundry[bench]'") from missing
    pictures = []
    for name, factor in PICTURES.items():
        pixels = torch.from_numpy(getattr(data, name)()).float() / 255
        channels = pixels.expand(COLOURS, -1, -1) if pixels.dim() == 2 else pixels.movedim(-1, 0)
        pictures.append(torch.nn.functional.avg_pool2d(channels, factor))
    return pictures


def draw_patches(
    pictures: list[Tensor], count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images [B, 3, 32, 32], 0 to 1, the numbers of their pictures [B], and places [B, 2].

    A place is the row and the column of the cell from which the upper left corner was drawn.
    """
    labels = torch.randint(len(pictures), (count,), generator=generator)
    corners = torch.rand((count, 2), generator=generator)
    images = []
    for label, corner in zip(labels.tolist(), corners, strict=True):
        picture = pictures[label]
        room = torch.tensor(picture.shape[1:]) - SIZE + 1
        top, left = (corner * room).long().tolist()
        images.append(picture[:, top : top + SIZE, left : left + SIZE])
    return torch.stack(images), labels, (corners * PLACES).long()


def to_patches(images: Tensor) -> Tensor:
    """Map images [B, 3, 32, 32], 0 to 1, to the model's patches [B, 64, 48], of unit variance."""
    parts = ((images - MEAN) / DEVIATION).unflatten(3, (GRID, PATCH)).unflatten(2, (GRID, PATCH))
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def to_images(patches: Tensor) -> Tensor:
    """Map patches [B, 64, 48] to images [B, 3, 32, 32], not clamped to 0 to 1."""
    parts = patches.unflatten(2, (COLOURS, PATCH, PATCH)).unflatten(1, (GRID, GRID))
    return parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3) * DEVIATION + MEAN


def _words() -> tuple[Tensor, Tensor]:
    """Return the vectors of all words [pictures + rows + columns + end, TEXT], and pooled ones."""
    generator = torch.Generator().manual_seed(_SEED)
    words = torch.randn(len(PICTURES) + 2 * PLACES + 1, TEXT, generator=generator)
    return words, torch.randn(len(PICTURES) + 1, POOLED, generator=generator)


def prompts(labels: Tensor, places: Tensor) -> Prompts:
    """Return the prompts of pictures [B] and places [B, 2]."""
    words, pooled = _words()
    tokens = torch.zeros(len(labels), _TOKENS, TEXT)
    tokens[:, 0] = words[labels]
    tokens[:, 1] = words[len(PICTURES) + places[:, 0]]
    tokens[:, 2] = words[len(PICTURES) + PLACES + places[:, 1]]
    tokens[:, 3] = words[-1]
    return Prompts(tokens, pooled[labels])


def empty_prompts(count: int) -> Prompts:
    """Return empty prompts, which only have an end token."""
    words, pooled = _words()
    tokens = torch.zeros(count, _TOKENS, TEXT)
    tokens[:, 0] = words[-1]
    return Prompts(tokens, pooled[-1].expand(count, -1))


def sample_prompts(count: int) -> tuple[Prompts, Tensor]:
    """Return prompts for samples, and the numbers of their pictures [B]: all in turn."""
    numbers = torch.arange(count)
    labels = numbers % len(PICTURES)
    cells = (numbers // len(PICTURES) * 5 + labels * 7) % PLACES**2
    return prompts(labels, torch.stack([cells // PLACES, cells % PLACES], dim=1)), labels
