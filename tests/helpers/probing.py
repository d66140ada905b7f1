"""Probes of the toy model: one call, the shifts found, the hooks left behind."""

from __future__ import annotations

import torch
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity
from nvfp4_foundry.quant.sensitivity.probe import LatentProbe
from torch import Tensor, nn

#: What a mix chooses from, beside leaving a layer as it is.
FORMATS = ("nvfp4", "float8_e4m3fn")


def random_input(seed: int = 3) -> Tensor:
    """Return an input of the toy model."""
    return torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(seed))


def probe_once(probe: LatentProbe, model: nn.Module, sigma: float = 0.5, seed: int = 3) -> Tensor:
    """Probe one call; returns the model's own output."""
    x = random_input(seed)
    with torch.no_grad():
        reference = model(x)
        probe.probe(model, lambda: model(x), reference, sigma)
    return reference


def latents(sensitivity: Sensitivity, fmt: str = "nvfp4") -> dict[str, dict[float, float]]:
    """Return the shifts that are known."""
    return {
        name: dict(layer.candidates[fmt].latent_by_sigma)
        for name, layer in sensitivity.layers.items()
        if fmt in layer.candidates and layer.candidates[fmt].latent_by_sigma
    }


def hooks(model: nn.Module) -> int:
    """Count the hooks of any kind on a model."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
