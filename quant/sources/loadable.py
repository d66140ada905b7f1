"""Turn a source into tensors that ComfyUI's own loader reads."""

from __future__ import annotations

import torch

from ..formats.plain import cast_plain
from .base import TensorSource
from .stored_layers import MARKER


def loadable_tensors(source: TensorSource) -> dict[str, torch.Tensor]:
    """Return all tensors of a model: quantized weights with markers, others in their dtype.

    Decodes weights for which ComfyUI has no format. All tensors are in memory at once.

    Raises:
        SourceError: a tensor cannot be read.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, info in source.tensors.items():
        stored = source.stored_weight(name)
        if stored is None or stored.format is None or stored.tensors is None:
            tensors[name] = cast_plain(source.load(name), info.dtype)
            continue
        layer = name.removesuffix(".weight")
        tensors.update({f"{layer}.{suffix}": part for suffix, part in stored.tensors().items()})
        marker = bytearray(stored.format.marker_bytes(stored.shape))
        tensors[f"{layer}.{MARKER}"] = torch.frombuffer(marker, dtype=torch.uint8)
        amax, divisor = stored.input_amax(), stored.format.activation_divisor
        if amax and divisor:
            tensors[f"{layer}.input_scale"] = torch.tensor(amax / divisor, dtype=torch.float32)
    return tensors
