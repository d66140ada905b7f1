"""Weights whose inputs are multiplied by a vector first, as AWQ and SmoothQuant store them.

The runtime computes ``(x * s) @ W.T``, so the weight of the unquantized layer is ``W * s``, with
column j multiplied by ``s[j]``. Source: ``forward`` of the quantized Linear in comfy/ops.py of
ComfyUI 0.30 and newer, and ``TensorQuantizer`` of NVIDIA's Model-Optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from ...errors import SourceError
from ...formats import get_format
from ...formats.nvfp4 import PRE_QUANT_SCALE
from ..base import TensorSource
from ..stored_weight import StoredWeight
from .parts import part

#: The name of our format with such a vector.
SMOOTH = "nvfp4_smooth"


def with_pre_quant_scale(source: TensorSource, layer: str, stored: StoredWeight) -> StoredWeight:
    """Return the weight with the vector of its layer multiplied in; unchanged if it has none.

    The weight is always decoded, so that every ComfyUI can load it. An input scale is for the
    multiplied input. It is shown for the format that newer ComfyUIs load, but never used.

    Raises:
        SourceError: the vector does not have one number per column.
    """
    info = part(source, layer, PRE_QUANT_SCALE)
    if info is None:
        return stored
    columns = stored.shape[-1]
    if len(stored.shape) != 2 or info.shape not in ((columns,), (1, columns)):
        raise SourceError(
            f"{source.description}: {info.name} has the shape {info.shape}, but the weight of "
            f"{layer} has {columns} columns; start from the 16-bit file"
        )

    def read() -> Callable[[slice], torch.Tensor]:
        decode = stored.read()
        factors = source.load(info.name).float().reshape(1, columns)
        return lambda rows: decode(rows).mul_(factors)

    names = dict.fromkeys((*stored.names, info.name))
    smooth = get_format(SMOOTH) if stored.comfyui_reads and stored.label == "nvfp4" else None
    return replace(
        stored,
        label=smooth.name if smooth else f"{stored.label} with {PRE_QUANT_SCALE}",
        names=tuple(names),
        nbytes=sum(source.info(name).nbytes for name in names),
        read=read,
        format=smooth,
        tensors=None,
        input_amax=stored.input_amax if smooth else lambda: None,
        kept_as="",
        comfyui_reads=False,
        remark=f"have a {PRE_QUANT_SCALE} (AWQ), which is multiplied into the decoded weights; "
        "ComfyUI before 0.30 ignores it",
    )
