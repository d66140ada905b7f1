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
from ..base import TensorSource
from ..stored_weight import StoredWeight
from .parts import part

PRE_QUANT_SCALE = "pre_quant_scale"


def with_pre_quant_scale(source: TensorSource, layer: str, stored: StoredWeight) -> StoredWeight:
    """Return the weight with the vector of its layer multiplied in; unchanged if it has none.

    No format of ours holds such a vector, so the weight is always decoded. A static input scale
    was measured on the multiplied input and does not apply to the decoded layer.

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

    return replace(
        stored,
        label=f"{stored.label} with {PRE_QUANT_SCALE}",
        read=read,
        format=None,
        tensors=None,
        input_amax=lambda: None,
        kept_as="",
        comfyui_reads=False,
        remark="have a pre_quant_scale (AWQ), which is multiplied into the decoded weights; "
        "ComfyUI before 0.30 ignores it",
    )
