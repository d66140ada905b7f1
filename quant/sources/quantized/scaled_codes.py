"""8-bit codes with scales per tensor, per row, or per block of rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

import torch

from ...errors import FormatError, SourceError
from ...formats import FORMATS, WeightFormat
from ..base import TensorInfo, TensorSource, dtype_name
from ..stored_weight import StoredWeight
from .convention import Found
from .parts import FLOAT8, float8_input_amax, layers_with, names_of, number, total_bytes

_CODES = (*FLOAT8, torch.int8)
# The files of DeepSeek call the scale an inverse, although it is a factor too.
_SCALES = ("weight_scale", "weight_scale_inv")


class ScaledCodes:
    """float8 and int8 codes with a ``weight_scale``, as many tools write them."""

    label = "codes with scales"
    reference = (
        "deepseek-ai/DeepSeek-V3: inference/kernel.py; "
        "huggingface/transformers: src/transformers/integrations/finegrained_fp8.py"
    )

    def find(self, source: TensorSource) -> Found:
        """Find float8 and int8 weights with a ``weight_scale`` and no marker.

        ModelOpt, Hugging Face, LightX2V and others write such files. Activations are divided by
        ``input_scale``.
        """
        return {
            f"{layer}.weight": partial(_stored_weight, source, layer, suffix)
            for suffix in _SCALES
            for layer in layers_with(source, suffix, "weight")
            if source.info(f"{layer}.weight").dtype in _CODES
        }


def _stored_weight(source: TensorSource, layer: str, suffix: str) -> StoredWeight:
    weight, scale = source.info(f"{layer}.weight"), source.info(f"{layer}.{suffix}")
    require_scales_fit(source, weight, scale)
    names = names_of(source, layer, "weight", suffix, "input_scale")
    fmt = _same_format(weight, scale)
    kind = dtype_name(weight.dtype)

    def input_amax() -> float | None:
        stored = number(source, layer, "input_scale")
        if weight.dtype in FLOAT8:
            return float8_input_amax(stored, weight.dtype)
        return None if stored is None else stored * 127.0

    return scaled_weight(source, f"{kind} with {suffix}", (weight, scale), names, fmt, input_amax)


def scaled_weight(
    source: TensorSource,
    label: str,
    parts: tuple[TensorInfo, TensorInfo],
    names: tuple[str, ...],
    fmt: WeightFormat | None,
    input_amax: Callable[[], float | None],
) -> StoredWeight:
    """Describe a weight from its codes and scales, ``parts``.

    ``fmt`` is the format with the same codes and scales, or None.
    """
    weight, scale = parts

    def tensors() -> dict[str, torch.Tensor]:
        assert fmt is not None
        wanted = fmt.tensor_specs(weight.shape, torch.bfloat16)["weight_scale"].shape
        scales = source.load(scale.name).float().reshape(wanted)
        return {"weight": source.load(weight.name), "weight_scale": scales}

    return StoredWeight(
        label=label,
        shape=weight.shape,
        names=names,
        nbytes=total_bytes(source, names),
        read=lambda: partial(scaled, source.load(weight.name), source.load(scale.name)),
        format=fmt,
        tensors=tensors if fmt else None,
        input_amax=input_amax,
        kept_as=fmt.name if fmt else "",
    )


def _same_format(weight: TensorInfo, scale: TensorInfo) -> WeightFormat | None:
    """Return the format of ComfyUI with the same codes and scales, or None."""
    if len(weight.shape) != 2:
        return None
    if prod(scale.shape) == 1:
        is_int8 = weight.dtype == torch.int8
        name = "int8_tensorwise" if is_int8 else dtype_name(weight.dtype)
        return FORMATS[name]
    if weight.dtype == torch.int8 and scale.shape in ((weight.shape[0],), (weight.shape[0], 1)):
        return FORMATS["int8_rowwise"]
    return None


def require_scales_fit(source: TensorSource, weight: TensorInfo, scale: TensorInfo) -> None:
    """Refuse a layer that `scaled` cannot decode, before its tensors are loaded.

    Raises:
        SourceError: the message names the layer.
    """
    try:
        _blocks(weight.shape, _scales_shape(weight.shape, scale.shape))
    except FormatError as error:
        raise SourceError(
            f"{source.description}: {weight.name} cannot be decoded with {scale.name}: {error}; "
            "start from another version of the model"
        ) from error


def scaled(codes: torch.Tensor, scale: torch.Tensor, rows: slice) -> torch.Tensor:
    """Return some rows of ``codes * scale`` in float32.

    Args:
        codes: float8 or int8 ``[out, in]``, with more dimensions for convolutions and experts.
        scale: one number, one number per row (``[out]`` or ``[out, 1]``), or
            ``[out / R, in / C]`` for blocks of R rows and C columns. The last block may be smaller.
        rows: positions on the first axis.

    Raises:
        FormatError: the scales have another shape.
    """
    shape = tuple(codes.shape)
    factor = scale.float().reshape(_scales_shape(shape, tuple(scale.shape)))
    first, *others = _blocks(shape, tuple(factor.shape))
    factor = factor[torch.arange(rows.start, rows.stop) // first]
    for axis, block in enumerate(others, 1):
        if factor.shape[axis] not in (1, shape[axis]):
            factor = factor.repeat_interleave(block, axis).narrow(axis, 0, shape[axis])
    return codes[rows].float().mul_(factor)


def _scales_shape(shape: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of scales with as many axes as the weight."""
    if prod(scales) == 1:
        return (1,) * len(shape)
    return (*scales, *(1 for _ in shape[1:])) if scales == shape[:1] else scales


def _blocks(shape: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many positions on each axis of a weight share a scale."""
    if len(scales) != len(shape):
        raise FormatError(f"scales {scales} do not fit a weight {shape}")
    return tuple(_block(*pair) for pair in zip(shape, scales, strict=True))


def _block(length: int, count: int) -> int:
    if count in (1, length):
        return length if count == 1 else 1
    if count:
        # Prefer powers of two, because the last block may be partial: 960 positions in 8 blocks
        # are blocks of 128, not of 120.
        power = 1 << (-(-length // count) - 1).bit_length()
        if -(-length // power) == count:
            return power
        if length % count == 0:
            return length // count
    raise FormatError(f"{count} scales do not divide {length} positions into equal blocks")
