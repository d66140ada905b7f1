"""The weights of a MODEL with its patches (LoRAs, merges with other models) applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.lora
import comfy.model_management
import torch
from comfy.quant_ops import QuantizedTensor

from ...quant.layer_names import module_name
from ...quant.sources import AppliedLora, TensorInfo

#: The prefix of a MODEL's keys for its diffusion model. Tensor names of a source lack it.
PREFIX = "diffusion_model."
_SHOWN_STRENGTHS = 4


def patches_of(model: Any, name: str, prefix: str = PREFIX) -> list[Any]:
    """Return the patches on a tensor of the diffusion model, in the order they are applied.

    Here and below, ``prefix`` is the prefix of the patcher's keys. It differs for a text encoder.
    """
    return model.patches.get(prefix + name, [])


def unpatched_weight(
    model: Any, name: str, live: torch.Tensor, prefix: str = PREFIX
) -> torch.Tensor:
    """Return a tensor as it was loaded; ``live`` is the tensor that the module holds now.

    A loaded MODEL keeps backups of the weights that it patched in place, and separate backups of
    weights that hooks changed. With little memory, ComfyUI patches weights only while it uses
    them: then the module holds the originals.
    """
    backup = model.backup.get(prefix + name)
    if backup is not None:
        return backup.weight
    hooked = model.hook_backup.get(prefix + name)
    return live if hooked is None else hooked[0]


def live_tensors(
    patcher: Any, module: torch.nn.Module, prefix: str = PREFIX
) -> dict[str, torch.Tensor]:
    """Return the tensors of a module of a MODEL or CLIP as they were loaded, by name.

    A quantized layer has the same tensors as in a file: codes, scales and marker.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, live in module.state_dict().items():
        tensor: Any = unpatched_weight(patcher, name, live, prefix)
        if isinstance(tensor, QuantizedTensor):  # a backup, which its module did not split
            tensors.update(tensor.state_dict(module_name(name)))
        else:
            tensors.setdefault(module_name(name), tensor)
    return tensors


def comfyui_linears(module: torch.nn.Module) -> frozenset[str]:
    """Return the names of the layers of a module that ComfyUI built with its own Linear.

    Only these decode quantized weights. ComfyUI also has banks of experts like this. A matrix that
    its module multiplies by itself, such as the gate of experts, is none of them.
    """
    return frozenset(
        module_name(name)
        for name, layer in module.named_modules()
        if hasattr(layer, "comfy_cast_weights") and hasattr(layer, "in_features")
    )


def merged_info(model: Any, info: TensorInfo, prefix: str = PREFIX) -> TensorInfo:
    """Return the info of a tensor with its patches applied: some LoRAs widen a weight."""
    patches = patches_of(model, info.name, prefix)
    if not patches:
        return info
    shape = comfy.lora.calculate_shape(patches, info, prefix + info.name)
    return TensorInfo(info.name, tuple(shape), info.dtype)


def merged_weight(
    model: Any, name: str, weight: torch.Tensor, prefix: str = PREFIX
) -> torch.Tensor:
    """Return an unpatched tensor with its patches applied, float32 on CPU.

    Uses ComfyUI's own arithmetic, in float32 throughout. Sampling computes the same and then rounds
    to the model's dtype.
    """
    device = comfy.model_management.get_torch_device()
    merged = comfy.lora.calculate_weight(
        patches_of(model, name, prefix),
        weight.to(device=device, dtype=torch.float32, copy=True),
        prefix + name,
        intermediate_dtype=torch.float32,
    )
    return merged.to("cpu")


def patch_notes(model: Any, loras: Sequence[AppliedLora] = (), prefix: str = PREFIX) -> list[str]:
    """Return notes for the user on the patches of a MODEL.

    ``loras`` are the files that are known to be applied.
    """
    patched = [patches for key, patches in model.patches.items() if key.startswith(prefix)]
    notes = []
    if patched:
        notes.append(
            f"{len(patched)} tensors have LoRAs or merges applied, at {_strengths(patched)}"
        )
    elif loras:
        notes.append(
            f"these LoRAs change no weight of this model: {', '.join(lo.name for lo in loras)}"
        )
    if model.injections or any(key.startswith(prefix) for key in model.weight_wrapper_patches):
        notes.append(
            "something is injected into this MODEL, such as a LoRA in bypass mode. It is NOT part "
            "of the weights and will be missing from the result; use the normal LoRA loader"
        )
    return notes


def _strengths(patched: Sequence[Sequence[Any]]) -> str:
    distinct = sorted({float(patch[0]) for patches in patched for patch in patches})
    shown = ", ".join(f"{strength:g}" for strength in distinct[:_SHOWN_STRENGTHS])
    more = len(distinct) - _SHOWN_STRENGTHS
    return f"strength {shown}" + (f" and {more} more" if more > 0 else "")
