"""Sample the small Flux, and judge its samples: ``python bench/sample_tiny_flux.py``.

Writes a picture of the samples, a column for each of scikit-image's pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from nvfp4_foundry.demo.sampling import guided, simple_sigmas
from picture_patches import (
    PICTURES,
    Prompts,
    draw_patches,
    empty_prompts,
    load_pictures,
    sample_prompts,
    to_images,
)
from PIL import Image
from tiny_flux import CHANNELS, GRID, MODEL_PATH, TinyFlux, load_model
from torch import Tensor

STEPS, GUIDANCE = 20, 2.0
_JUDGE_PATCHES, _JUDGE_SEED, _RIDGE = 6000, 3, 1.0


@torch.no_grad()
def sample(
    model: TinyFlux,
    wanted: Prompts,
    seed: int,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    on_step: Callable[[float, list[int]], None] | None = None,
) -> Tensor:
    """Return sampled patches [B, 64, 48] by Euler steps with guidance.

    ``on_step`` is called before each model call with sigma and the branches of the batch: 0 is
    conditional, 1 unconditional.
    """
    count = len(wanted.tokens)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((count, GRID**2, CHANNELS), generator=generator)
    empty = empty_prompts(count)
    text = torch.cat([wanted.tokens, empty.tokens])
    pooled = torch.cat([wanted.pooled, empty.pooled])
    for sigma, next_sigma in pairwise(simple_sigmas(steps, 1.0).tolist()):
        if on_step is not None:
            on_step(sigma, [0, 1])
        velocity = model(x.repeat(2, 1, 1), torch.full((2 * count,), sigma), text, pooled)
        x = x + (next_sigma - sigma) * guided(velocity, [0, 1], guidance)
    return x


@dataclass(frozen=True)
class Judge:
    """A linear classifier of features: ``weight`` float32 [features + 1, pictures]."""

    weight: Tensor

    def predict(self, images: Tensor) -> Tensor:
        """Return the numbers [B] of the pictures that images [B, 3, 32, 32] are patches of."""
        return (features(images) @ self.weight).argmax(dim=1)

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Return the share of images that look like a patch of the wanted picture."""
        return (self.predict(images) == labels).float().mean().item()


def features(images: Tensor) -> Tensor:
    """Return features of images [B, 3, 32, 32]: coarse colours, contrast and a constant.

    The contrast is the mean difference of neighbours in each of 16 cells, by direction.
    """
    clamped = images.clamp(0, 1)
    pool = torch.nn.functional.adaptive_avg_pool2d
    grey = clamped.mean(dim=1, keepdim=True)
    contrast = [
        pool((grey - grey.roll(shift, (2, 3))).abs(), 4).flatten(1)
        for shift in ((0, 1), (1, 0), (0, 2), (2, 0), (1, 1), (1, -1))
    ]
    colour = pool(clamped, 4).flatten(1)
    parts = [colour, colour.square(), *contrast, *(part.sqrt() for part in contrast)]
    return torch.cat([*parts, torch.ones(len(images), 1)], dim=1)


def fit_judge(pictures: list[Tensor]) -> Judge:
    """Fit a ridge regression from features to pictures, on seeded patches."""
    generator = torch.Generator().manual_seed(_JUDGE_SEED)
    images, labels, _ = draw_patches(pictures, _JUDGE_PATCHES, generator)
    x = features(images).double()
    y = torch.nn.functional.one_hot(labels, len(pictures)).double()
    ridge = _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
    return Judge(torch.linalg.solve(x.T @ x + ridge, x.T @ y).float())


def draw_grid(images: Tensor, path: Path, columns: int, enlarged: int = 3) -> None:
    """Write images [B, 3, 32, 32] as one picture, row by row."""
    padded = torch.nn.functional.pad(images.clamp(0, 1), (1, 1, 1, 1), value=1.0)
    rows = padded.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    pixels = (rows * 255).round().to(torch.uint8).numpy()
    picture = Image.fromarray(pixels)
    size = (picture.width * enlarged, picture.height * enlarged)
    picture.resize(size, Image.Resampling.NEAREST).save(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, judge, and write the picture."""
    parser = argparse.ArgumentParser(description="Sample the small Flux, and judge its samples.")
    parser.add_argument("--model", type=Path, default=MODEL_PATH)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--picture", type=Path, default=Path("tiny_flux.png"))
    options = parser.parse_args(arguments)
    pictures = load_pictures()
    judge = fit_judge(pictures)
    held_out, truth, _ = draw_patches(pictures, 1000, torch.Generator().manual_seed(99))
    print(f"judge: {judge.accuracy(held_out, truth):.1%} of other patches")
    wanted, labels = sample_prompts(options.samples)
    model = load_model(options.model)
    images = to_images(sample(model, wanted, 0, options.steps, options.guidance))
    print(f"{judge.accuracy(images, labels):.1%} of {options.samples} samples are recognised")
    shown = options.samples // len(PICTURES) * len(PICTURES)
    draw_grid(images[:shown], options.picture, len(PICTURES))


if __name__ == "__main__":
    main()
