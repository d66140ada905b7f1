"""8-bit codes with scales per tensor, per row, or per block of rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch

from ...errors import FormatError, SourceError
from ...formats import FORMATS, WeightFormat
from ...formats.e4m3 import decode_e4m3
from ..base import TensorInfo, TensorSource, dtype_name
from ..stored_weight import StoredWeight
from .convention import Found
from .input_scales import code_input_amax
from .parts import FLOAT8, layers_with, names_of, total_bytes
from .pre_quant_scale import PRE_QUANT_SCALE, with_pre_quant_scale

#: The dtypes of such codes.
CODES = (*FLOAT8, torch.int8)
# The files of DeepSeek call the scale an inverse, although it is a factor too.
_SCALES = ("weight_scale", "weight_scale_inv")


@dataclass(frozen=True)
class CodesAndScales:
    """The tensors of a weight: codes, factors, and a second factor if the first has a scale too.

    ``group`` is the size of blocks if the file says it. ``is_inverse`` is for scales that divide.
    """

    source: TensorSource
    weight: TensorInfo
    scale: TensorInfo
    group: int | None = None
    is_inverse: bool = False
    second: TensorInfo | None = None

    def load_scale(self) -> torch.Tensor:
        """Read the factors, float32, in their stored shape."""
        scale = self.source.load(self.scale.name).float()
        scale = scale.reciprocal() if self.is_inverse else scale
        return scale if self.second is None else scale * self.source.load(self.second.name).float()


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
            for suffix in reversed(_SCALES)
            for layer in layers_with(source, suffix, "weight")
            if source.info(f"{layer}.weight").dtype in CODES
        }


def _stored_weight(source: TensorSource, layer: str, suffix: str) -> StoredWeight:
    weight, scale = source.info(f"{layer}.weight"), source.info(f"{layer}.{suffix}")
    require_scales_fit(source, weight, scale)
    names = names_of(source, layer, "weight", suffix, "input_scale", PRE_QUANT_SCALE)
    stored = scaled_weight(
        f"{dtype_name(weight.dtype)} with {suffix}",
        CodesAndScales(source, weight, scale),
        names,
        same_format(weight, scale),
        lambda: code_input_amax(source, layer, "input_scale", weight.dtype),
    )
    return with_pre_quant_scale(source, layer, stored)


def scaled_weight(
    label: str,
    parts: CodesAndScales,
    names: tuple[str, ...],
    fmt: WeightFormat | None,
    input_amax: Callable[[], float | None],
) -> StoredWeight:
    """Describe a weight from its codes and scales.

    ``fmt`` is the format with the same codes and scales, or None.
    """
    source, weight = parts.source, parts.weight

    def tensors() -> dict[str, torch.Tensor]:
        assert fmt is not None
        wanted = fmt.tensor_specs(weight.shape, torch.bfloat16)["weight_scale"].shape
        scales = parts.load_scale().reshape(wanted)
        return {"weight": source.load(weight.name), "weight_scale": scales}

    return StoredWeight(
        label=label,
        shape=weight.shape,
        names=names,
        nbytes=total_bytes(source, names),
        read=lambda: partial(
            scaled, source.load(weight.name), parts.load_scale(), group=parts.group
        ),
        format=fmt,
        tensors=tensors if fmt else None,
        input_amax=input_amax,
        kept_as=fmt.name if fmt else "",
    )


def same_format(weight: TensorInfo, scale: TensorInfo) -> WeightFormat | None:
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


def require_scales_fit(
    source: TensorSource, weight: TensorInfo, scale: TensorInfo, group: int | None = None
) -> None:
    """Refuse a layer that `scaled` cannot decode, before its tensors are loaded.

    Raises:
        SourceError: the message names the layer.
    """
    try:
        if not scale.dtype.is_floating_point:  # bytes may be exponents, or packed
            raise FormatError(f"the scales are {dtype_name(scale.dtype)}")
        _blocks(weight.shape, scale.shape, group)
    except FormatError as error:
        raise SourceError(
            f"{source.description}: {weight.name} cannot be decoded with {scale.name}: {error}; "
            "start from another version of the model"
        ) from error


def scaled(
    codes: torch.Tensor, scale: torch.Tensor, rows: slice, *, group: int | None = None
) -> torch.Tensor:
    """Return some rows of ``codes * scale`` in float32.

    Args:
        codes: float8 or int8 ``[out, in]``, with more dimensions for convolutions and experts.
        scale: one number, one number per row (``[out]`` or ``[out, 1]``), one per group of columns
            (``[out, in / C]`` or ``[out, in / C, 1]``), or ``[out / R, in / C]`` for blocks of R
            rows and C columns. In two dimensions, the last block may be smaller.
        rows: positions on the first axis.
        group: R or C, or both, if the file says it.

    Raises:
        FormatError: the scales have another shape.
    """
    shape = tuple(codes.shape)
    first, *others = _blocks(shape, tuple(scale.shape), group)
    factor = scale.float().reshape(_scales_shape(shape, tuple(scale.shape)))
    factor = factor[torch.arange(rows.start, rows.stop) // first]
    for axis, block in enumerate(others, 1):
        if factor.shape[axis] not in (1, shape[axis]):
            factor = factor.repeat_interleave(block, axis).narrow(axis, 0, shape[axis])
    part = codes[rows]
    is_e4m3 = part.dtype == torch.float8_e4m3fn  # torch converts these one by one
    return (decode_e4m3(part) if is_e4m3 else part.float()).mul_(factor)


def _scales_shape(shape: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of scales with as many axes as the weight."""
    if prod(scales) == 1:
        return (1,) * len(shape)
    if _is_grouped(shape, scales):
        return scales[:-1]
    return (*scales, *(1 for _ in shape[1:])) if scales == shape[:1] else scales


def _is_grouped(shape: tuple[int, ...], scales: tuple[int, ...]) -> bool:
    """Whether these are scales ``[out, groups, 1]`` of a matrix."""
    return len(shape) == 2 and len(scales) == 3 and scales[::2] == (shape[0], 1)


def _blocks(
    shape: tuple[int, ...], scales: tuple[int, ...], group: int | None = None
) -> tuple[int, ...]:
    """Return how many positions on each axis of a weight share a scale."""
    axes = _scales_shape(shape, scales)
    if len(axes) != len(shape):
        raise FormatError(f"scales {scales} do not fit a weight {shape}")
    if _is_grouped(shape, scales):
        if not scales[1] or shape[1] % scales[1]:
            raise FormatError(f"{scales[1]} scales do not divide {shape[1]} columns into groups")
        return (1, shape[1] // scales[1])
    return tuple(_block(*pair, group) for pair in zip(shape, axes, strict=True))


def _block(length: int, count: int, group: int | None = None) -> int:
    if count in (1, length):
        return length if count == 1 else 1
    if count:
        if group is not None and group > 0 and -(-length // group) == count:
            return group
        # Prefer powers of two, because the last block may be partial: 960 positions in 8 blocks
        # are blocks of 128, not of 120.
        power = 1 << (-(-length // count) - 1).bit_length()
        if -(-length // power) == count:
            return power
        if length % count == 0:
            return length // count
    raise FormatError(f"{count} scales do not divide {length} positions into equal blocks")
