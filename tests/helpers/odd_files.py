"""Quantized files of tools beside the common ones, made without the package under test."""

from __future__ import annotations

import json
from collections.abc import Callable

import comfy_kitchen as ck
import torch

from tests.helpers.quantized_files import Tensors, with_weights

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
#: Largest relative error of a weight for each kind of codes, with room for small matrices.
BOUNDS = {E4M3: 0.03, E5M2: 0.06, torch.int8: 0.02, torch.uint8: 0.14}


def top(dtype: torch.dtype) -> float:
    """Return the largest code."""
    return 127.0 if dtype == torch.int8 else torch.finfo(dtype).max


def codes(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a weight divided by its scales, in codes."""
    scaled = weight / scale
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype)


def per_tensor(weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes with one scale."""
    scale = weight.abs().amax() / top(dtype)
    return codes(weight, scale, dtype), scale.reshape(1)


def per_row(weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes with scales ``[out, 1]``."""
    scale = weight.abs().amax(1, keepdim=True) / top(dtype)
    return codes(weight, scale, dtype), scale


def per_group(
    weight: torch.Tensor, dtype: torch.dtype, group: int = 32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes with scales ``[out, groups, 1]``."""
    blocks = weight.reshape(weight.shape[0], -1, group)
    scale = blocks.abs().amax(2, keepdim=True) / top(dtype)
    return codes(blocks, scale, dtype).reshape(weight.shape), scale


def per_block(
    weight: torch.Tensor, dtype: torch.dtype, size: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes with scales ``[out / size, in / size]``."""
    rows, columns = weight.shape
    blocks = weight.reshape(rows // size, size, columns // size, size)
    scale = blocks.abs().amax((1, 3)) / top(dtype)
    made = codes(blocks, scale[:, None, :, None], dtype)
    return made.reshape(weight.shape), scale


def marker(**content: object) -> torch.Tensor:
    """Return a marker tensor."""
    return torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)


Split = Callable[[torch.Tensor], "tuple[torch.Tensor, torch.Tensor]"]


def coded(
    model: Tensors,
    split: Split,
    suffix: str = "",
    *,
    change: Callable[[torch.Tensor], torch.Tensor] = lambda scale: scale,
    **content: object,
) -> Tensors:
    """Return a model with codes, scales under a name (empty: none), and markers if ``content``."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        values, scale = split(weight)
        made = {f"{layer}.weight": values}
        if suffix:
            made[f"{layer}.{suffix}"] = change(scale)
        if content:
            made[f"{layer}.comfy_quant"] = marker(**content)
        return made

    return with_weights(model, quantize)


def nvfp4(weight: torch.Tensor, *, tiled: bool = True, high_first: bool = True) -> Tensors:
    """Return the tensors of an NVFP4 weight by suffix, by default in ComfyUI's layout."""
    scale = weight.abs().max() / 2688
    packed, scales = ck.quantize_nvfp4(weight, scale, pad_16x=True)
    if not tiled:
        rows, blocks = weight.shape[0], weight.shape[1] // 16
        linear = ck.from_blocked(scales.view(torch.uint8), rows, blocks).contiguous()
        scales = linear.view(E4M3)
    packed = packed if high_first else (packed << 4) | (packed >> 4)
    return {"weight": packed, "weight_scale": scales, "weight_scale_2": scale}


def nvfp4_file(
    model: Tensors, *, comfyui: bool, content: dict[str, object] | None = None
) -> Tensors:
    """Return a model in ComfyUI's or ModelOpt's layout, with markers if they are given."""

    def quantize(layer: str, weight: torch.Tensor) -> Tensors:
        made = nvfp4(weight, tiled=comfyui, high_first=comfyui)
        made = {f"{layer}.{suffix}": tensor for suffix, tensor in made.items()}
        return {**made, f"{layer}.comfy_quant": marker(**content)} if content else made

    return with_weights(model, quantize)
