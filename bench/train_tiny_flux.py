"""Train the small Flux by flow matching: ``python bench/train_tiny_flux.py``.

It takes about half an hour on two idle CPU cores. It needs the extra ``bench``, for the pictures.
The script writes the averaged weights every few minutes, so it can be stopped early.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from picture_patches import draw_patches, load_pictures, prompts, to_patches
from safetensors.torch import save_file
from tiny_flux import MODEL_PATH, new_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

SAVE_EVERY = 250
DATA_NOTICE = (
    "Trained on patches of scikit-image's pictures that are in the public domain, under CC0, or "
    "have no known copyright restrictions"
)


@dataclass(frozen=True)
class Training:
    """The settings of one training run."""

    steps: int = 5000
    batch: int = 32
    learning_rate: float = 8e-4
    warmup: int = 100
    averaging: float = 0.998
    dropped_prompts: float = 0.1
    seed: int = 0


def learning_rate_factor(step: int, training: Training) -> float:
    """Return the factor of the learning rate: a linear warm-up, then half a cosine to zero."""
    decay = 0.5 * (1 + math.cos(math.pi * step / training.steps))
    return min(1.0, (step + 1) / training.warmup) * decay


def flow_loss(
    model: nn.Module, pictures: list[Tensor], training: Training, generator: torch.Generator
) -> Tensor:
    """Return the squared error of the velocity for one drawn batch with logit-normal times."""
    images, labels, places = draw_patches(pictures, training.batch, generator)
    clean = to_patches(images)
    drop = torch.rand(training.batch, generator=generator) < training.dropped_prompts
    given = prompts(labels, places).dropped(drop)
    sigma = torch.sigmoid(torch.randn(training.batch, generator=generator))
    noise = torch.randn(clean.shape, generator=generator)
    mixed = torch.lerp(clean, noise, sigma[:, None, None])
    # Half of the time of float32 on a CPU that multiplies bfloat16; the weights stay float32.
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model(mixed, sigma, given.tokens, given.pooled)
    return nn.functional.mse_loss(velocity.float(), noise - clean)


def save_model(model: nn.Module, path: Path, training: Training, steps: int) -> None:
    """Write the weights in bfloat16, with Flux's own names."""
    weights = {
        name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()
    }
    metadata = {
        "description": "A Flux.1 of 11.6 M parameters that draws 32x32 patches of pictures; a "
        "model of NVFP4 Foundry's benches",
        "license": "Apache-2.0",
        "data": DATA_NOTICE,
        "seed": str(training.seed),
        "steps": f"{steps} of {training.steps}",
    }
    save_file(weights, path, metadata=metadata)


def train(path: Path, training: Training) -> None:
    """Train a model from its seed, and write its averaged weights to ``path``."""
    pictures = load_pictures()
    model = new_model(training.seed)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.averaging))
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, training)
    )
    generator = torch.Generator().manual_seed(training.seed)
    running_loss, started = math.nan, time.monotonic()
    for step in range(1, training.steps + 1):
        loss = flow_loss(model, pictures, training, generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
        running_loss = loss.item() if step == 1 else 0.98 * running_loss + 0.02 * loss.item()
        if step % 50 == 0:
            passed = time.monotonic() - started
            print(f"step {step}/{training.steps}  loss {running_loss:.4f}  {passed:.0f} s")
        if step % SAVE_EVERY == 0 or step == training.steps:
            save_model(averaged.module, path, training, step)


def main() -> None:
    """Train and write the model."""
    parser = argparse.ArgumentParser(description="Train the small Flux on patches of pictures.")
    parser.add_argument("--steps", type=int, default=Training.steps)
    parser.add_argument("--seed", type=int, default=Training.seed)
    parser.add_argument("--model", type=Path, default=MODEL_PATH, help="where to write the model")
    options = parser.parse_args()
    train(options.model, Training(steps=options.steps, seed=options.seed))


if __name__ == "__main__":
    main()
