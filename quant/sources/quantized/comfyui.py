"""ComfyUI's own convention: every quantized layer has a marker that names its format."""

from __future__ import annotations

from functools import partial
from math import prod

import torch

from ...errors import CheckpointError, SourceError
from ...formats import FORMATS, TensorSpec, WeightFormat
from ...formats.base import is_full_precision
from ..base import TensorSource
from ..stored_layers import StoredLayer, read_layout
from ..stored_weight import StoredWeight
from .convention import Found
from .parts import number


class ComfyUI:
    """Layers with a marker, in the file or in its header."""

    label = "ComfyUI"
    reference = "Comfy-Org/ComfyUI: QUANTIZATION.md, comfy/quant_ops.py"

    def find(self, source: TensorSource) -> Found:
        """Find the weights of layers with a marker, in the file or in its header.

        Raises:
            CheckpointError: a marker is damaged.
        """
        return {
            f"{layer.name}.weight": partial(_stored_weight, source, layer)
            for layer in read_layout(source).values()
            if layer.marker is not None
        }


def _stored_weight(source: TensorSource, layer: StoredLayer) -> StoredWeight:
    fmt = layer.format
    if fmt is None:
        raise SourceError(
            f"{source.description}: {layer.name} is stored as {layer.format_name}, which is not "
            f"known here; known are {', '.join(f for f in FORMATS if FORMATS[f].is_quantized)}"
        )
    shape = layer.shape()
    if len(shape) != 2:
        raise SourceError(
            f"{source.description}: {layer.name} is stored as {layer.format_name} with "
            f"{len(shape)} dimensions (a bank of experts?); only weights of two are read"
        )
    parts = {s: info for s, info in layer.tensors.items() if s != "bias"}
    _require_parts(source, layer, fmt, shape)

    def tensors() -> dict[str, torch.Tensor]:
        wanted = fmt.tensor_specs(shape, torch.bfloat16)
        return {s: _as_specified(source.load(parts[s].name), spec) for s, spec in wanted.items()}

    def input_amax() -> float | None:
        if fmt.activation_divisor is None or "input_scale" not in parts:
            return None
        scale = number(source, layer.name, "input_scale")
        # Nobody measured what the runtime does by itself.
        is_default = fmt.runtime_scale == "1.0" and scale == 1.0
        return None if scale is None or is_default else scale * fmt.activation_divisor

    return StoredWeight(
        label=fmt.name,
        shape=shape,
        names=tuple(info.name for info in parts.values()),
        nbytes=sum(info.nbytes for info in parts.values()),
        read=lambda: partial(fmt.decode, tensors(), shape),
        format=fmt,
        tensors=tensors,
        kept_as=_kept_as(layer, fmt, shape),
        input_amax=input_amax,
        comfyui_reads=True,
    )


def _as_specified(tensor: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """Return a stored tensor as we store it: files differ in views and in shapes of one number."""
    if tensor.dtype != spec.dtype and tensor.dtype.itemsize == spec.dtype.itemsize == 1:
        tensor = tensor.view(spec.dtype)
    elif tensor.dtype != spec.dtype:
        tensor = tensor.to(spec.dtype)
    return tensor.reshape(spec.shape)


def _kept_as(layer: StoredLayer, fmt: WeightFormat, shape: tuple[int, ...]) -> str:
    """Return the format of ours that writes the same tensors, and the same way to multiply.

    Or one that multiplies in 16 bits: marked otherwise, e5m2 is rounded inputs that no GPU takes.
    """
    in_16_bits = is_full_precision(layer.marker)
    same = [ours for ours in FORMATS.values() if ours.is_quantized and ours.stores_like(fmt, shape)]
    alike = [ours for ours in same if ours.is_full_precision == in_16_bits]
    found = alike or [ours for ours in same if ours.is_full_precision]
    return found[0].name if found else ""


def _require_parts(
    source: TensorSource, layer: StoredLayer, fmt: WeightFormat, shape: tuple[int, ...]
) -> None:
    for suffix, spec in fmt.tensor_specs(shape, torch.bfloat16).items():
        info = layer.tensors.get(suffix)
        if info is None:
            found = "is missing"
        elif prod(info.shape) != prod(spec.shape):
            found = f"has the shape {info.shape}, not {spec.shape}"
        elif not _stands_for(info.dtype, spec.dtype):
            found = f"is {info.dtype}, not {spec.dtype}"
        else:
            continue
        raise CheckpointError(
            f"{source.description}: {layer.name} is marked as {fmt.name}, but its {suffix} "
            f"{found}; the file is damaged or was changed since"
        )


def _stands_for(found: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether the values of one type are those of the other, or its bytes."""
    if wanted.itemsize > 1:
        return found.is_floating_point and found.itemsize > 1
    return found == wanted or (found.itemsize == 1 and torch.uint8 in (found, wanted))
