"""Find the Linear layers of a model and their names."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch

from ..errors import CalibrationError
from ..layer_names import module_name


def find_linears(
    root: torch.nn.Module, layer_names: Collection[str] | None = None, prefix: str = ""
) -> dict[str, torch.nn.Module]:
    """Return the Linear layers of a module tree by normalized name (``prefix`` + dotted path).

    Recognises layers by their attributes, not their class, because ComfyUI and quantized
    checkpoints have their own Linear classes. Never reads weights, which may be offloaded. With
    ``layer_names``, returns only these. Raises `CalibrationError` if nothing is left.
    """
    found = {prefix + name: module for name, module in _linears(root)}
    wanted = {n: m for n, m in found.items() if layer_names is None or n in layer_names}
    if not wanted:
        examples = ", ".join(list(found)[:3]) or "none"
        raise CalibrationError(
            f"{type(root).__name__} has none of the Linear layers to observe (its Linear layers: "
            f"{examples}); make sure that this is the model whose layers you named"
        )
    return wanted


def _linears(root: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, module in root.named_modules():
        width = getattr(module, "in_features", None)
        if isinstance(width, int) and hasattr(module, "out_features") and _has_weight(module):
            yield module_name(name), module


def _has_weight(module: torch.nn.Module) -> bool:
    """Return whether a module has a ``weight``, without evaluating a property of that name."""
    return (
        "weight" in module._parameters
        or "weight" in module._buffers
        or "weight" in vars(module)
        or hasattr(type(module), "weight")
    )
