"""Names in published files where they differ from those of ComfyUI's modules."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

StateDict = dict[str, torch.Tensor]
_PIXEL_MODULATION = re.compile(r"(pixel_blocks\.\d+\.adaLN_modulation)_msa(\.\w+)")


def published_names(model: str, tensors: StateDict) -> StateDict:
    """Return the tensors as the published file of a model has them."""
    return _CHANGES.get(model, dict)(tensors)


def _pid(tensors: StateDict) -> StateDict:
    """Join the modulation that ComfyUI splits as it loads the file, per pixel of a patch."""
    width = tensors["pixel_embedder.proj.weight"].shape[0]
    found: StateDict = {}
    for name, tensor in tensors.items():
        split = _PIXEL_MODULATION.fullmatch(name)
        if split:
            halves = (tensor, tensors[name.replace("_msa.", "_mlp.")])
            per_pixel = [half.view(-1, 3, width, *half.shape[1:]) for half in halves]
            found[f"{split[1]}.0{split[2]}"] = torch.cat(per_pixel, 1).flatten(0, 2)
        elif ".adaLN_modulation_mlp." not in name:
            found[name] = tensor
    return found


def _pixeldit(tensors: StateDict) -> StateDict:
    return {f"core.{name}": tensor for name, tensor in _pid(tensors).items()}


def _zero123(tensors: StateDict) -> StateDict:
    """Add the projection of the picture, by which ComfyUI knows the model."""
    projection = {"weight": (768, 772), "bias": (768,)}
    beside = {f"cc_projection.{k}": torch.empty(s, device="meta") for k, s in projection.items()}
    return {**tensors, **beside}


_CHANGES: dict[str, Callable[[StateDict], StateDict]] = {
    "pid": _pid,
    "pixeldit": _pixeldit,
    "zero123": _zero123,
}
