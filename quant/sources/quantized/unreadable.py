"""Recognise quantized weights that cannot be decoded."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

import torch

from ...errors import FoundryError, SourceError
from ..base import StoredAs, TensorInfo, TensorSource
from ..stored_layers import MARKER, StoredLayer, read_layout
from ..stored_weight import StoredWeight
from .comfyui import is_plain
from .float8_scaled import FILE_MARKERS

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
    ".weight._data": "optimum-quanto",
    ".W_q": "HQQ",
}
_SCALES = (
    ".comfy_quant", ".scale_weight", ".scale_input", ".weight_scale", ".weight_scale_2",
    ".weight_scale_inv", ".weight_global_scale", ".input_scale", ".input_global_scale",
    ".pre_quant_scale", ".weight_scalar", ".scale_weight_tensor",
)  # fmt: skip
# What scales and the like are called. Beside a quantized weight, one that no convention uses would
# make the weights wrong.
_SCALE_LIKE = re.compile(r"(?i)scal(e|ar|ing)|abs_?max|(^|_)amax|zero_?point|(^|_)(zp|zeros?)$")
_OF_WEIGHT = re.compile(r"(?i)([._]weight)?[._](weight_)?(scales?(_inv)?|inv_scale|absmax)$")
# Scales of the attention's cache and of outputs. They do not concern the weight.
_OF_ACTIVATIONS = frozenset({"k_scale", "v_scale", "q_scale", "kv_scale", "output_scale"})
_START_FROM = "start from the bf16, fp16, fp32, fp8 or GGUF version of the model"


def leftovers(source: TensorSource) -> frozenset[str]:
    """Return the names of tensors that say how the file is quantized, but are not of any weight.

    These are marks of the whole file, markers of layers that are not quantized, and scales of
    activations that ComfyUI does not quantize.
    """
    of_file = {n for n in source.tensors if n.rpartition(".")[2] in FILE_MARKERS}
    unquantized = {
        layer.tensors[MARKER].name
        for layer in read_layout(source, lenient=True).values()
        if MARKER in layer.tensors and (layer.marker is None or is_plain(layer))
    }
    activations = {
        name
        for name in source.tensors
        if name.rpartition(".")[2] in _OF_ACTIVATIONS and _quantized_beside(source, name)
    }
    return frozenset(of_file | unquantized | activations)


def require_readable(source: TensorSource, used: Collection[str]) -> None:
    """Refuse quantized weights of conventions that are not supported.

    Raises:
        SourceError: the message names the convention, or the tensor that is not understood.
    """
    hidden = leftovers(source)
    for name, info in source.tensors.items():
        if name in used or name in hidden:
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
        weight = _SCALE_LIKE.search(name.rpartition(".")[2]) and _quantized_beside(source, name)
        if weight:
            raise SourceError(
                f"{source.description}: {name} looks like a scale of {weight}, which is stored in "
                f"8 bits, but its meaning is not known; {_START_FROM}"
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
    found, hidden = {}, leftovers(source)
    for layer in read_layout(source, lenient=True).values():
        weight = layer.tensors.get("weight")
        if weight is None or weight.name in used:
            continue
        names = [
            info.name
            for suffix, info in layer.tensors.items()
            if suffix != "bias" and info.name not in hidden
        ]
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


def _quantized_beside(source: TensorSource, name: str) -> str | None:
    """Return the weight in 8 bits that a tensor of this name would belong to, if there is one."""
    base = name.rpartition(".")[0]
    stripped = _OF_WEIGHT.sub("", name)
    for weight in (f"{base}.weight", base, stripped, f"{stripped}.weight"):
        info = source.tensors.get(weight)
        if info is not None and weight != name and len(info.shape) > 1 and info.dtype.itemsize == 1:
            return weight
    return None


def _is_packed(info: TensorInfo) -> bool:
    is_weight = info.name.endswith(".weight") and len(info.shape) > 1
    return is_weight and not info.dtype.is_floating_point
