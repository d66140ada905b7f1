"""ComfyUI's own convention: each quantized layer has a marker that names its format."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod

import torch

from ...errors import CheckpointError, SourceError
from ...formats import FORMATS, ExpertBank, TensorSpec, WeightFormat, for_shape
from ...formats.base import is_full_precision
from ...formats.markers import marked_names
from ..base import TensorSource
from ..stored_layers import INPUT_SCALE, MARKER, StoredLayer, read_layout
from ..stored_weight import StoredWeight
from .awq_w4a16 import AWQ_W4A16, awq_weight
from .convention import Found
from .foreign_markers import FOREIGN, REPEATED, as_known, foreign_weight, inferred_format, remark_of
from .input_scales import input_amax_of
from .parts import number
from .pre_quant_scale import PRE_QUANT_SCALE, with_pre_quant_scale


class ComfyUI:
    """Weights of layers with a marker, in the file or in its header."""

    label = "ComfyUI"
    reference = "Comfy-Org/ComfyUI: QUANTIZATION.md, comfy/quant_ops.py"

    def find(self, source: TensorSource) -> Found:
        """Find the weights of layers with a marker, in the file or in its header.

        Raises:
            CheckpointError: a marker is damaged.
        """
        return {
            f"{layer.name}.weight": partial(marked_weight, source, layer)
            for layer in read_layout(source, lenient=True).values()
            if layer.marker is not None and not is_plain(layer)
        }


def is_plain(layer: StoredLayer) -> bool:
    """Whether a layer has a marker without a format, but is not quantized."""
    if layer.marker is None or "format" in layer.marker:
        return False
    is_wide = layer.weight.dtype.is_floating_point and layer.weight.dtype.itemsize > 1
    return is_wide and not set(layer.tensors) - {"weight", "bias", MARKER}


def marked_weight(
    source: TensorSource, layer: StoredLayer, *, is_marked: bool = True
) -> StoredWeight:
    """Describe the weight of a layer by its marker.

    Args:
        source: the file.
        layer: the layer with its marker, which may lack the format.
        is_marked: whether the file itself holds the marker, so that ComfyUI finds it.

    Raises:
        SourceError: the format is not known.
        CheckpointError: the tensors do not fit the marker.
    """
    marker = dict(layer.marker or {})
    if "format" not in marker:
        marker["format"], is_marked = inferred_format(source, layer), False
        layer = replace(layer, marker=marker)
    foreign = foreign_weight(source, layer) or awq_weight(source, layer)
    if foreign is not None:
        return foreign
    known = as_known(layer)
    plain = {s: info for s, info in known.tensors.items() if s != PRE_QUANT_SCALE}
    stored = replace(
        _own_weight(source, replace(known, tensors=plain), REPEATED if known is not layer else ()),
        comfyui_reads=is_marked and known is layer,
    )
    if known is not layer:
        stored = replace(stored, remark=remark_of(str(marker["format"])))
    return with_pre_quant_scale(source, layer.name, stored)


def _own_weight(
    source: TensorSource, layer: StoredLayer, repeated: tuple[str, ...] = ()
) -> StoredWeight:
    """Describe the weight of a layer in one of ComfyUI's formats.

    ``repeated`` are the suffixes of tensors that say again what others say. Tensors of any other
    suffix do not belong to the weight, so they are refused later.
    """
    fmt = layer.format
    if fmt is None:
        known = ", ".join((*marked_names(), *FOREIGN, AWQ_W4A16))
        raise SourceError(
            f"{source.description}: {layer.name} is stored as {layer.format_name}, which is not "
            f"one of the formats that are read ({known}); "
            "start from another version of the model"
        )
    shape = layer.shape()
    if len(shape) != 2 and not isinstance(fmt, ExpertBank):
        raise SourceError(
            f"{source.description}: {layer.name} is stored as {layer.format_name} with "
            f"{len(shape)} dimensions, but only matrices and banks of them can be decoded; "
            "start from the 16-bit file"
        )
    wanted = fmt.tensor_specs(shape, torch.bfloat16)
    mine = {*wanted, MARKER, INPUT_SCALE, *repeated}
    parts = {s: info for s, info in layer.tensors.items() if s in mine}
    _require_parts(source, layer, fmt, shape)

    def tensors() -> dict[str, torch.Tensor]:
        return {s: _as_specified(source.load(parts[s].name), spec) for s, spec in wanted.items()}

    def input_amax() -> float | None:
        if fmt.activation_divisor is None or "input_scale" not in parts:
            return None
        # A scale of 1.0 is the runtime's default, so it was not measured.
        if fmt.runtime_scale == "1.0" and number(source, layer.name, "input_scale") == 1.0:
            return None
        return input_amax_of(source, layer.name, "input_scale", fmt.activation_divisor)

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
    )


def _is_shared(shape: tuple[int, ...], fmt: WeightFormat) -> bool:
    """Whether the experts of a bank share a scale."""
    return isinstance(fmt, ExpertBank) and prod(shape) == 1


def _as_specified(tensor: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """Return a stored tensor with the dtype and shape of a spec.

    Files differ in how they view bytes, and in the shape of single numbers.
    """
    if tensor.dtype != spec.dtype and tensor.dtype.itemsize == spec.dtype.itemsize == 1:
        tensor = tensor.view(spec.dtype)
    elif tensor.dtype != spec.dtype:
        tensor = tensor.to(spec.dtype)
    if tensor.numel() == 1:  # also a scale that the experts of a bank share
        return tensor.reshape([1] * len(spec.shape)).expand(spec.shape)
    return tensor.reshape(spec.shape)


def _kept_as(layer: StoredLayer, fmt: WeightFormat, shape: tuple[int, ...]) -> str:
    """Return the name of the format that stores and multiplies a layer in the same way.

    If there is none, return one that stores it in the same way but multiplies in 16 bits. This
    concerns E5M2, because no GPU multiplies it natively. Empty if there is none either.
    """
    in_16_bits = is_full_precision(layer.marker)
    same = [
        ours
        for ours in FORMATS.values()
        if ours.is_quantized and for_shape(ours, shape).stores_like(fmt, shape)
    ]
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
        elif prod(info.shape) != prod(spec.shape) and not _is_shared(info.shape, fmt):
            found = f"has the shape {info.shape}, not {spec.shape}"
        elif not _stands_for(info.dtype, spec.dtype):
            found = f"is {info.dtype}, not {spec.dtype}"
        else:
            continue
        raise CheckpointError(
            f"{source.description} is damaged: {layer.name} is marked as {fmt.name}, but its "
            f"{suffix} {found}; fetch it again, or start from another version of the model"
        )


def _stands_for(found: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether a tensor of one dtype can hold the values, or the bytes, of the other."""
    if wanted.itemsize > 1:
        return found.is_floating_point and found.itemsize > 1
    return found == wanted or (found.itemsize == 1 and torch.uint8 in (found, wanted))
