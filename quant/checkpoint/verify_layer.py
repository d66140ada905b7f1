"""Check one layer of a checkpoint, and compare it with the source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch

from ..formats import ExpertBank, WeightFormat
from ..formats.base import TensorSpec, row_slices, tensor_amax
from ..formats.nvfp4 import PRE_QUANT_SCALE
from ..formats.parallel import share_chunks
from ..sources import TensorSource
from ..sources.stored_layers import BIAS, INPUT_SCALE, MARKER, StoredLayer
from .provenance import tensor_digest

# A recorded error was computed by the same arithmetic, in another order of summation, and
# rounded to five digits. A tighter tolerance finds smaller damage.
_RECORDED_TOLERANCE = 0.001


@dataclass(frozen=True)
class RecordedLayers:
    """Errors of weights and digests of corrected biases by layer, from the file's header."""

    errors: Mapping[str, float | None]
    biases: Mapping[str, str]


@dataclass(frozen=True)
class LayerContent:
    """A layer that was read.

    Attributes:
        layer: names, shapes and marker.
        stored: its tensors by suffix.
        source: the tensors of the source by full name; those that it has.
        decoded_before: whether the tensors are as they were written, which the writer decoded.
    """

    layer: StoredLayer
    stored: Mapping[str, torch.Tensor]
    source: Mapping[str, torch.Tensor]
    decoded_before: bool


def check_layer(
    content: LayerContent, original: TensorSource | None, recorded: RecordedLayers
) -> Iterator[str]:
    """Yield the problems of a layer, each with its name."""
    layer = content.layer
    if layer.marker is None:
        yield from _check_unquantized(content)
        return
    fmt = layer.format
    if fmt is None:
        yield f"{layer.name}: this tool does not know the format {layer.marker.get('format')!r}"
        return
    shape = layer.shape()
    if original is not None and f"{layer.name}.weight" in original.tensors:
        shape = original.info(f"{layer.name}.weight").shape
    if len(shape) != 2 and not isinstance(fmt, ExpertBank):
        yield f"{layer.name}: the layer has a marker, but its weight has {len(shape)} dimensions"
        return
    wrong = list(_check_specs(layer, fmt.tensor_specs(shape, torch.bfloat16)))
    yield from wrong
    if wrong:
        return
    yield from _check_scales(content, fmt)
    yield from _check_weight(content, fmt, shape, recorded.errors.get(layer.name))
    if BIAS not in layer.tensors:
        return
    bias = layer.tensors[BIAS].name
    digest = recorded.biases.get(layer.name)
    if digest is None:
        yield from _check_equal(content.stored[BIAS], bias, content.source)
    elif tensor_digest(content.stored[BIAS]) != digest:
        yield f"{bias}: the tensor differs from the corrected bias that was written"


def _check_specs(layer: StoredLayer, specs: dict[str, TensorSpec]) -> Iterator[str]:
    for suffix, spec in specs.items():
        info = layer.tensors.get(suffix)
        if info is None:
            yield f"{layer.name}: {suffix} is missing"
        elif info.shape != spec.shape or not _is_stored_as(info.dtype, spec.dtype, suffix):
            yield (
                f"{layer.name}: {suffix} is {info.dtype} {info.shape}, "
                f"but the format needs {spec.dtype} {spec.shape}"
            )


def _is_stored_as(found: torch.dtype, wanted: torch.dtype, suffix: str) -> bool:
    """Return whether loaders accept the dtype: they view one-byte block scales as they need.

    ComfyUI casts factors per channel to the dtype of the input.
    """
    if suffix == PRE_QUANT_SCALE:
        return found.is_floating_point and found.itemsize > 1
    is_byte = found.itemsize == wanted.itemsize == 1
    return found == wanted or (suffix != "weight" and is_byte)


def _check_scales(content: LayerContent, fmt: WeightFormat) -> Iterator[str]:
    layer = content.layer
    for suffix, info in layer.tensors.items():
        if suffix in ("weight", BIAS, MARKER):
            continue
        values = fmt.read_scale(suffix, content.stored[suffix])
        if not bool(torch.isfinite(values).all()):
            yield f"{layer.name}: {suffix} holds NaN or infinite values"
        elif suffix not in fmt.signed and bool((values < 0).any()):
            yield f"{layer.name}: {suffix} is negative"
        elif values.numel() == 1 and float(values) == 0:
            yield f"{layer.name}: {suffix} is zero"
        if suffix == INPUT_SCALE and info.dtype != torch.float32:
            yield f"{layer.name}: input_scale is {info.dtype}, but loaders need float32"


def _check_weight(
    content: LayerContent,
    fmt: WeightFormat,
    shape: tuple[int, ...],
    recorded_error: float | None,
) -> Iterator[str]:
    """Decode the weight in bands of rows and compare it with the source."""
    layer = content.layer
    source = content.source.get(f"{layer.name}.weight")
    if source is None and content.decoded_before:
        return
    endless, squared_error, squared_norm = _compare_bands(content, fmt, shape, source)
    if endless is not None:
        yield (
            f"{layer.name}: rows {endless.start}-{endless.stop} decode to NaN or infinite values"
        )
        return
    if source is None:
        return
    relative = (squared_error / (squared_norm or 1.0)) ** 0.5
    known = recorded_error is not None
    if known and abs(relative - recorded_error) <= _RECORDED_TOLERANCE * recorded_error + 1e-6:
        return
    if relative > fmt.error_bound:
        yield (
            f"{layer.name}: the decoded weight differs from the source by {relative:.1%}, "
            f"more than the limit for {fmt.name} ({fmt.error_bound:.0%})"
        )
    elif known:
        yield (
            f"{layer.name}: the weight error is {relative:.4%}, but it was {recorded_error:.4%} "
            "when the file was written"
        )


def _compare_bands(
    content: LayerContent,
    fmt: WeightFormat,
    shape: tuple[int, ...],
    source: torch.Tensor | None,
) -> tuple[slice | None, float, float]:
    """Decode a weight in bands of rows on several cores, and compare them with the source.

    Returns:
        The first band that decodes to NaN or infinite values, or None; and the squares of the
        error and of the source, both in units of the largest value of the source.
    """
    # Values relative to the largest one, so that their squares do not overflow.
    unit = (float(tensor_amax(source)) if source is not None else 0.0) or 1.0
    bands = row_slices(shape[0], prod(shape[1:]))
    endless: list[slice] = []
    squares: dict[int, tuple[float, float]] = {}

    def loop(chunks: Iterable[slice]) -> None:
        for rows in chunks:
            decoded = fmt.decode(content.stored, shape, rows)
            if not bool(torch.isfinite(decoded).all()):
                endless.append(rows)
            elif source is not None:
                wanted = source[rows].float().div_(unit)
                error = decoded.div_(unit).sub_(wanted).square_().sum(dtype=torch.float64)
                norm = wanted.square_().sum(dtype=torch.float64)
                squares[rows.start] = float(error), float(norm)

    share_chunks(loop, bands, torch.device("cpu"))
    if endless:
        return min(endless, key=lambda rows: rows.start), 0.0, 0.0
    # in the order of the rows, so that the sums do not depend on the threads
    errors, norms = [[squares[start][k] for start in sorted(squares)] for k in (0, 1)]
    return None, sum(errors), sum(norms)


def _check_unquantized(content: LayerContent) -> Iterator[str]:
    layer = content.layer
    weight = layer.tensors.get("weight")
    if weight is not None and not weight.dtype.is_floating_point:
        yield (
            f"{layer.name}: the weight is {weight.dtype} but has no marker, so ComfyUI would "
            "misread it"
        )
    for suffix, info in layer.tensors.items():
        yield from _check_equal(content.stored[suffix], info.name, content.source)


def _check_equal(
    stored: torch.Tensor, name: str, source: Mapping[str, torch.Tensor]
) -> Iterator[str]:
    """Check that an unquantized tensor is bit-equal to the source, cast to the stored dtype."""
    wanted = source.get(name)
    if wanted is not None:
        yield from tensors_differ(stored, name, wanted)


def tensors_differ(stored: torch.Tensor, name: str, wanted: torch.Tensor) -> Iterator[str]:
    """Yield how a tensor differs from one of the source, cast to the stored dtype."""
    if stored.shape != wanted.shape:
        yield (
            f"{name}: the shape is {tuple(stored.shape)}, but {tuple(wanted.shape)} in the source"
        )
    elif not torch.equal(_bits(stored), _bits(wanted.to(stored.dtype))):
        yield f"{name}: the tensor is not quantized, but differs from the source"


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view as bytes, in which NaN equals itself."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
