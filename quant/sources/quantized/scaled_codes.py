"""8-bit codes times a scale: per tensor, per row, or per block of rows and columns."""

from __future__ import annotations

import torch

from ...errors import FormatError
from ...formats import FORMATS, WeightFormat
from ..base import TensorInfo, TensorSource
from ..stored_weight import StoredWeight
from .parts import FLOAT8, layers_with, names_of, number, total_bytes

_CODES = (*FLOAT8, torch.int8)
# DeepSeek's files call the factor to multiply with an inverse.
_SCALES = ("weight_scale", "weight_scale_inv")


def scaled_codes_weights(source: TensorSource) -> dict[str, StoredWeight]:
    """Return float8 and int8 weights with a ``weight_scale`` and no marker.

    ModelOpt, Hugging Face, LightX2V and others write such files. ``input_scale`` is the factor
    activations were divided by.
    """
    found: dict[str, StoredWeight] = {}
    for suffix in _SCALES:
        for layer in layers_with(source, suffix, "weight"):
            if source.info(f"{layer}.weight").dtype in _CODES:
                found.setdefault(f"{layer}.weight", _stored_weight(source, layer, suffix))
    return found


def _stored_weight(source: TensorSource, layer: str, suffix: str) -> StoredWeight:
    weight, scale = source.info(f"{layer}.weight"), source.info(f"{layer}.{suffix}")
    names = names_of(source, layer, "weight", suffix, "input_scale")
    fmt = _same_format(weight, scale)
    kind = str(weight.dtype).removeprefix("torch.")

    def tensors() -> dict[str, torch.Tensor]:
        assert fmt is not None
        wanted = fmt.tensor_specs(weight.shape, torch.bfloat16)["weight_scale"].shape
        scales = source.load(scale.name).float().reshape(wanted)
        return {"weight": source.load(weight.name), "weight_scale": scales}

    def input_amax() -> float | None:
        stored = number(source, layer, "input_scale")
        largest = torch.finfo(weight.dtype).max if weight.dtype in FLOAT8 else 127.0
        return None if stored is None else stored * largest

    return StoredWeight(
        label=f"{kind} with {suffix}",
        shape=weight.shape,
        names=names,
        nbytes=total_bytes(source, names),
        decode=lambda: scaled(source.load(weight.name), source.load(scale.name)),
        format=fmt,
        tensors=tensors if fmt else None,
        input_amax=input_amax,
        kept_as=fmt.name if fmt else "",
    )


def _same_format(weight: TensorInfo, scale: TensorInfo) -> WeightFormat | None:
    """Return the format of ComfyUI with the same codes and scales, or None."""
    if len(weight.shape) != 2:
        return None
    if scale.shape in ((), (1,)):
        is_int8 = weight.dtype == torch.int8
        name = "int8_tensorwise" if is_int8 else str(weight.dtype).removeprefix("torch.")
        return FORMATS[name]
    if weight.dtype == torch.int8 and scale.shape in ((weight.shape[0],), (weight.shape[0], 1)):
        return FORMATS["int8_rowwise"]
    return None


def scaled(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return ``codes * scale`` in float32 ``[out, in]``.

    Args:
        codes: ``[out, in]``, float8 or int8.
        scale: one number; ``[out]`` or ``[out, 1]``; or ``[out / R, in / C]`` for blocks of R
            rows and C columns, the last of which may be smaller.

    Raises:
        FormatError: the scales fit no such scheme.
    """
    values, factor = codes.float(), scale.float()
    if factor.numel() == 1:
        return values.mul_(factor.reshape(()))
    if factor.dim() == 1 and factor.shape[0] == values.shape[0]:
        factor = factor.unsqueeze(1)
    if factor.dim() != 2 or values.dim() != 2:
        raise FormatError(f"scales {tuple(scale.shape)} do not fit a weight {tuple(codes.shape)}")
    for axis in (0, 1):
        factor = _stretched(factor, axis, values.shape[axis])
    return values.mul_(factor)


def _stretched(factor: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    """Repeat scales along an axis so that each covers its block of ``length`` positions."""
    count = factor.shape[axis]
    if count in (1, length):
        return factor
    block = -(-length // count)
    if length % count:  # the last block is partial: blocks are powers of two
        block = 1 << (block - 1).bit_length()
    if -(-length // block) != count:
        raise FormatError(f"{count} scales do not divide {length} positions into equal blocks")
    return factor.repeat_interleave(block, axis).narrow(axis, 0, length)
