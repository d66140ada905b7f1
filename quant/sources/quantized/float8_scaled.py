"""The ``scaled_fp8`` convention, from before markers: a ``scale_weight`` for each weight."""

from __future__ import annotations

import torch

from ...formats import FORMATS
from ..base import TensorSource
from ..stored_weight import StoredWeight
from .parts import FLOAT8, layers_with, names_of, number, part, total_bytes
from .scaled_codes import scaled

#: One tensor of this name (behind the model's prefix) marks such a file.
FILE_MARKER = "scaled_fp8"
E5M2 = "float8_e5m2"  # always multiplied in 16 bits


def float8_scaled_weights(source: TensorSource) -> dict[str, StoredWeight]:
    """Return the weights that have a ``scale_weight``; a ``scale_input`` of 1.0 means none."""
    # As ComfyUI reads it: two elements ask for products in 16 bits.
    in_16_bits = any(
        name.rpartition(".")[2] == FILE_MARKER and info.shape == (2,)
        for name, info in source.tensors.items()
    )
    return {
        f"{layer}.weight": _stored_weight(source, layer, in_16_bits)
        for layer in layers_with(source, "scale_weight", "weight")
    }


def _stored_weight(source: TensorSource, layer: str, in_16_bits: bool) -> StoredWeight:
    weight, scale = source.info(f"{layer}.weight"), source.info(f"{layer}.scale_weight")
    names = names_of(source, layer, "weight", "scale_weight", "scale_input")
    per_tensor = len(weight.shape) == 2 and scale.shape in ((), (1,))
    fmt = None
    if weight.dtype in FLOAT8 and per_tensor:
        name = str(weight.dtype).removeprefix("torch.")
        fmt = FORMATS[f"{name}_w8a16" if in_16_bits and name != E5M2 else name]

    def tensors() -> dict[str, torch.Tensor]:
        scales = source.load(scale.name).float().reshape(())
        return {"weight": source.load(weight.name), "weight_scale": scales}

    def input_amax() -> float | None:
        stored = number(source, layer, "scale_input")
        if stored is None or stored == 1.0 or part(source, layer, "scale_input") is None:
            return None
        return stored * torch.finfo(weight.dtype).max

    kind = str(weight.dtype).removeprefix("torch.")
    return StoredWeight(
        label=f"{kind} (scaled_fp8)",
        shape=weight.shape,
        names=names,
        nbytes=total_bytes(source, names),
        decode=lambda: scaled(source.load(weight.name), source.load(scale.name)),
        format=fmt,
        tensors=tensors if fmt else None,
        input_amax=input_amax,
        kept_as=fmt.name if fmt else "",
        comfyui_reads=True,
    )
