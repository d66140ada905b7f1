"""Which modules of a model are linear layers, and what they are called."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch

from ..errors import CalibrationError
from ..layer_names import module_name


def find_linears(
    root: torch.nn.Module, layer_names: Collection[str] | None = None, prefix: str = ""
) -> dict[str, torch.nn.Module]:
    """Return the linear layers of a module tree by normalized name (``prefix`` + dotted path).

    Picked by their attributes, not their class: quantized checkpoints and ComfyUI have linears of
    their own. Weights are never read: they may be offloaded. With ``layer_names`` only these.
    Raises `CalibrationError` when nothing is left.
    """
    found = {prefix + name: module for name, module in _linears(root)}
    wanted = {n: m for n, m in found.items() if layer_names is None or n in layer_names}
    if not wanted:
        examples = ", ".join(list(found)[:3]) or "none at all"
        raise CalibrationError(
            f"{type(root).__name__} has no linear layer to observe (it has: {examples})"
        )
    return wanted


def _linears(root: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, module in root.named_modules():
        width = getattr(module, "in_features", None)
        if isinstance(width, int) and hasattr(module, "out_features") and _has_weight(module):
            # torch.compile wraps modules under this name.
            yield module_name(name), module


def _has_weight(module: torch.nn.Module) -> bool:
    """Look for the name ``weight`` without evaluating a property of that name."""
    return (
        "weight" in module._parameters
        or "weight" in module._buffers
        or "weight" in vars(module)
        or hasattr(type(module), "weight")
    )
