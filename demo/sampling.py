"""Euler sampling of a flow with classifier-free guidance, like ComfyUI's for WAN 2.1.

A KSampler with ``euler``, ``simple``, shift 8 and the same seed gives the same latents, except that
it applies ``latent_format.process_out`` to its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .digits import IMAGE_SIZE, LATENT_CHANNELS, DigitsTask, load_task
from .model import TinyWan

SHIFT = 8.0
TIMESTEPS = 1000

COND, UNCOND = 0, 1

OnStep = Callable[[float, list[int]], None]


def shift_time(time: Tensor, shift: float = SHIFT) -> Tensor:
    """Return the sigma of a time from 0 to 1: ``shift * t / (1 + (shift - 1) * t)``.

    The shift moves it toward noise. Source: Esser et al. 2024 (https://arxiv.org/abs/2403.03206),
    section 5.3.2.
    """
    return shift * time / (1 + (shift - 1) * time)


def simple_sigmas(steps: int, shift: float = SHIFT) -> Tensor:
    """Return ComfyUI's ``simple`` schedule: evenly spaced entries of the 1000 sigmas, then zero.

    Returns:
        float32 [steps + 1], decreasing from 1 to 0.

    Raises:
        ValueError: ``steps`` is not in 1 to 1000.
    """
    if not 1 <= steps <= TIMESTEPS:
        raise ValueError(f"steps must be 1 to {TIMESTEPS}, got {steps}")
    table = shift_time(torch.arange(1, TIMESTEPS + 1, dtype=torch.float32) / TIMESTEPS, shift)
    spacing = TIMESTEPS / steps
    picks = [TIMESTEPS - 1 - int(step * spacing) for step in range(steps)]
    return torch.cat([table[picks], torch.zeros(1)])


def initial_noise(count: int, seed: int) -> Tensor:
    """Return noise float32 [count, 16, 1, 8, 8], drawn on the CPU as in ComfyUI."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, LATENT_CHANNELS, 1, IMAGE_SIZE, IMAGE_SIZE), generator=generator)


@torch.no_grad()
def sample(
    model: TinyWan,
    labels: Sequence[int] | Tensor,
    seed: int,
    steps: int = 20,
    cfg: float = 2.0,
    on_step: OnStep | None = None,
    task: DigitsTask | None = None,
) -> Tensor:
    """Generate the digits ``labels``.

    Args:
        model: predicts the velocity. Sampling runs on its ``device``.
        labels: one digit per image, [B].
        seed: seed of the initial noise.
        steps: number of Euler steps.
        cfg: guidance scale. At 1, only the conditional branch runs, as in ComfyUI.
        on_step: called before each model call with sigma (1 to 0) and the branch of each chunk of
            the batch (0 conditional, 1 unconditional), like ComfyUI's ``cond_or_uncond``.
        task: contexts and codec; by default those that the demo model was trained with.

    Returns:
        float32 [B, 16, 1, 8, 8] on the model's device, in the space of ``DigitsTask.decode``.
    """
    task = task or load_task()
    device = model.device
    x = initial_noise(len(labels), seed).to(device)
    branches = [COND] if cfg == 1.0 else [COND, UNCOND]
    positive = task.contexts(labels).float()
    negative = task.empty_context.float().expand_as(positive)
    context = torch.cat([positive, negative][: len(branches)]).to(device)

    sigmas = simple_sigmas(steps).tolist()
    for sigma, next_sigma in pairwise(sigmas):
        if on_step is not None:
            on_step(sigma, list(branches))
        timestep = torch.full((len(context),), sigma * TIMESTEPS, device=device)
        velocity = model(x.repeat(len(branches), 1, 1, 1, 1), timestep, context).float()
        x = x + (next_sigma - sigma) * guided(velocity, branches, cfg)
    return x


def guided(velocity: Tensor, branches: list[int], cfg: float) -> Tensor:
    """Combine the chunks of ``velocity``, one per branch, by classifier-free guidance."""
    if branches == [COND]:
        return velocity
    conditional, unconditional = velocity.chunk(2)
    return unconditional + cfg * (conditional - unconditional)
