"""The demo model as stock ComfyUI loads and computes it, for scripts that compare numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import torch

generator = torch.Generator().manual_seed(0)
LATENT = torch.randn(2, 16, 1, 8, 8, generator=generator)
CONTEXT = torch.randn(2, 4, 4096, generator=generator)


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


def load(path: Path) -> Any:
    """ComfyUI's MODEL of a file, computing in float32. Without it, its weights may go."""
    patcher = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float32})
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    return patcher


def output(patcher: Any) -> torch.Tensor:
    """One call of the model."""
    model = patcher.model.diffusion_model
    return model(LATENT, torch.tensor([900.0, 300.0]), context=CONTEXT)
