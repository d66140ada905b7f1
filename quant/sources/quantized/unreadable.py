"""Recognise quantized weights that cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch

from ...errors import FoundryError, SourceError
from ..base import StoredAs, TensorInfo, TensorSource
from ..stored_layers import StoredLayer, read_layout
from ..stored_weight import StoredWeight
from .float8_scaled import FILE_MARKER

# The labels of weights that cannot be decoded end with this.
_UNKNOWN = " (not readable)"
# The endings of tensor names that occur in only one convention, and the convention.
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
    ".pre_quant_scale": "AWQ (with scaled inputs)",
    ".weight._data": "optimum-quanto",
    ".W_q": "HQQ",
}
_SCALES = (
    ".comfy_quant", ".scale_weight", ".scale_input", ".weight_scale", ".weight_scale_2",
    ".weight_scale_inv", ".weight_global_scale", ".input_scale", ".input_global_scale",
)  # fmt: skip
_START_FROM = "start from the bf16, fp16, fp32, fp8 or GGUF version of the model"


def leftovers(source: TensorSource) -> frozenset[str]:
    """Return the names of tensors that only mark the file as quantized."""
    return frozenset(n for n in source.tensors if n.rpartition(".")[2] == FILE_MARKER)


def require_readable(source: TensorSource, used: Collection[str]) -> None:
    """Refuse quantized weights of conventions that are not supported.

    Raises:
        SourceError: the message names the convention, or the tensor that is not understood.
    """
    for name, info in source.tensors.items():
        if name in used:
            continue
        for sign, convention in _SIGNS.items():
            if name.endswith(sign):
                raise SourceError(
                    f"{source.description} is quantized by {convention} ({name}), which cannot be "
                    f"decoded; {_START_FROM}"
                )
        if name.endswith(_SCALES):
            raise SourceError(
                f"{source.description}: {name} does not belong to any known quantized weight; the "
                f"file is damaged, or follows an unknown convention; {_START_FROM}"
            )
        if _is_packed(info):
            raise SourceError(
                f"{source.description}: {name} is {info.dtype} and has no known marker or scales, "
                f"so its values cannot be determined; {_START_FROM}"
            )


def unknown_weights(
    source: TensorSource, used: Collection[str], refused: Mapping[str, FoundryError]
) -> dict[str, StoredWeight]:
    """Describe the weights that cannot be decoded, so that they can be listed.

    Args:
        source: the file.
        used: names of tensors that belong to known weights.
        refused: errors of weights that do not follow their convention, by name.
    """
    found = {}
    for layer in read_layout(source).values():
        weight = layer.tensors.get("weight")
        if weight is None or weight.name in used:
            continue
        names = [info.name for suffix, info in layer.tensors.items() if suffix != "bias"]
        reason = refused.get(weight.name)
        if reason is None and len(names) == 1 and not _is_packed(weight):
            continue
        found[weight.name] = _unknown(source, layer, tuple(names), reason)
    return found


def is_readable(stored: StoredWeight | StoredAs | None) -> bool:
    """Whether a weight can be decoded."""
    return stored is None or not stored.label.endswith(_UNKNOWN)


def _unknown(
    source: TensorSource, layer: StoredLayer, names: tuple[str, ...], reason: FoundryError | None
) -> StoredWeight:
    def read() -> Callable[[slice], torch.Tensor]:
        raise reason or SourceError(
            f"{source.description}: {layer.name} follows an unknown convention, so it cannot be "
            f"decoded; {_START_FROM}"
        )

    return StoredWeight(
        label=f"{layer.format_name}{_UNKNOWN}",
        shape=layer.weight.shape,
        names=names,
        nbytes=sum(source.info(name).nbytes for name in names),
        read=read,
    )


def _is_packed(info: TensorInfo) -> bool:
    is_matrix = info.name.endswith(".weight") and len(info.shape) == 2
    return is_matrix and not info.dtype.is_floating_point
