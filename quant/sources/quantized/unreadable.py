"""Quantized files of conventions that are not read here, by name."""

from __future__ import annotations

from collections.abc import Collection

from ...errors import SourceError
from ..base import TensorSource
from .float8_scaled import FILE_MARKER

# What only files of one convention hold: the end of a tensor's name, and whose it is.
_SIGNS = {
    ".quant_state.bitsandbytes__nf4": "bitsandbytes NF4",
    ".quant_state.bitsandbytes__fp4": "bitsandbytes FP4",
    ".SCB": "bitsandbytes int8",
    ".qzeros": "GPTQ or AWQ",
    ".wscales": "Nunchaku (SVDQuant)",
    ".smooth_factor": "Nunchaku (SVDQuant)",
    ".qweight": "GPTQ, AWQ or Nunchaku",
    ".weight_codebook": "a codebook",
    ".weight_zero_point": "an asymmetric scheme",
    ".pre_quant_scale": "AWQ (its inputs are scaled, too)",
    ".weight._data": "optimum-quanto",
    ".W_q": "HQQ",
}
_SCALES = (
    ".comfy_quant", ".scale_weight", ".scale_input", ".weight_scale", ".weight_scale_2",
    ".weight_scale_inv", ".weight_global_scale", ".input_scale", ".input_global_scale",
)  # fmt: skip
_START_FROM = "start from the bf16, fp16, fp32, fp8 or GGUF version of the model"


def leftovers(source: TensorSource) -> frozenset[str]:
    """Return tensors that only say that the file is quantized."""
    return frozenset(n for n in source.tensors if n.rpartition(".")[2] == FILE_MARKER)


def require_readable(source: TensorSource, used: Collection[str]) -> None:
    """Refuse quantized weights whose convention none of ours is.

    Raises:
        SourceError: naming what was recognised, or the tensor that is not understood.
    """
    for name, info in source.tensors.items():
        if name in used:
            continue
        for sign, convention in _SIGNS.items():
            if name.endswith(sign):
                raise SourceError(
                    f"{source.description} is quantized by {convention} ({name}), which cannot be "
                    f"decoded here; {_START_FROM}"
                )
        if name.endswith(_SCALES):
            raise SourceError(
                f"{source.description}: {name} belongs to no quantized weight that is known here; "
                f"the file is damaged, or of a convention that is not supported; {_START_FROM}"
            )
        packed = not info.dtype.is_floating_point and len(info.shape) == 2
        if name.endswith(".weight") and packed:
            raise SourceError(
                f"{source.description}: {name} is {info.dtype} without a marker or scales that "
                f"are known here, so its values cannot be told; {_START_FROM}"
            )
