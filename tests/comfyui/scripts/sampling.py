"""Sampling a tiny model in ComfyUI's Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sample
import comfy.sd
import torch
from tiny_families import Family


def loaded(path: Path, family: Family) -> Any:
    """Return the MODEL of a file of the family, which computes in float32."""
    with family.small():
        return comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float32})


def sampled(patcher: Any, family: Family, steps: int) -> torch.Tensor:
    """Sample a few steps of a MODEL; returns all values of the latent."""
    latent = family.empty_latent()
    noise = comfy.sample.prepare_noise(latent, 3)
    text = family.conditioning()
    result = comfy.sample.sample(
        patcher, noise, steps, 1.0, "euler", "simple", text, text, latent,
        disable_pbar=True, seed=3,
    )  # fmt: skip
    parts = result.unbind() if result.is_nested else [result]
    return torch.cat([part.flatten() for part in parts]).float()
