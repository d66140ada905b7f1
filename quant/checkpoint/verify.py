"""Read a checkpoint back and check it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from ..errors import FoundryError, is_out_of_memory
from ..formats import ExpertBank, WeightFormat
from ..formats.base import TensorSpec, row_slices, tensor_amax
from ..progress import OnProgress, numbered
from ..sources import TensorSource, open_source, open_tensors, without_prefix
from ..sources.qwen_edit import marked_architectures
from ..sources.stored_layers import (
    BIAS,
    INPUT_SCALE,
    MARKER,
    StoredLayer,
    announced_markers,
    read_layout,
)
from .layer_record import read_records
from .provenance import read_provenance, tensor_digest
from .soundness import needs_newer_comfyui, not_understood, soundness_problems

# A recorded error was computed by the same arithmetic, in another order of summation, and
# rounded to five digits. A tighter tolerance finds smaller damage.
_RECORDED_TOLERANCE = 0.001


@dataclass(frozen=True)
class VerifyResult:
    """The problems found, each naming its layer, and the number of layers checked.

    ``notes`` is what is no problem of the file, such as a ComfyUI that it needs.
    """

    problems: tuple[str, ...]
    layers: int
    quantized: int
    compared_with_source: bool
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data with ``ok``, ``problems`` and what was checked."""
        return {
            "ok": self.ok,
            "problems": list(self.problems),
            "layers": self.layers,
            "quantized": self.quantized,
            "compared_with_source": self.compared_with_source,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Recorded:
    """Errors of weights and digests of corrected biases by layer, from the file's header."""

    errors: Mapping[str, float | None]
    biases: Mapping[str, str]


def verify_checkpoint(
    path: str | Path,
    source: str | Path | None = None,
    on_progress: OnProgress | None = None,
    *,
    complete_from: str | Path | None = None,
    layout: str = "",
) -> VerifyResult:
    """Verify a checkpoint file, and compare it with the source model if that is given.

    Checks that every marker has its tensors in the right shapes and dtypes, that scales are
    finite and positive, that no quantized weight lacks a marker, that weights decode to finite
    values, and that ComfyUI loads the file as the whole model that it is (see ``soundness``). With
    a source, also checks that decoded weights match it within the format's error bound (and with
    the recorded error), and that unquantized tensors are bit-equal. ``complete_from`` is the file
    with the tensors that the source lacks, ``layout`` that of its NVFP4 weights without markers
    (see `open_source`).

    Raises:
        SourceError: a file cannot be read at all.
    """
    with open_tensors(path) as opened:
        checkpoint = without_prefix(opened)
        if source is None:
            return _verify(opened, checkpoint, None, on_progress)
        meant_for = marked_architectures(checkpoint)
        with open_source(source, complete_from, meant_for=meant_for, layout=layout) as original:
            return _verify(opened, checkpoint, original, on_progress)


def _verify(
    opened: TensorSource,
    checkpoint: TensorSource,
    original: TensorSource | None,
    on_progress: OnProgress | None,
) -> VerifyResult:
    """Verify an open checkpoint, whose names have their prefix in ``opened``."""
    problems: list[str] = []
    try:
        layers = read_layout(checkpoint)
        problems += _check_announcement(checkpoint, layers)
    except FoundryError as error:
        return VerifyResult((str(error),), 0, 0, original is not None)
    if original is not None:
        problems += _check_names(layers, original)
        problems += _check_rest(checkpoint.rest, original.rest)
    provenance = read_provenance(checkpoint)
    recorded = _Recorded(
        {name: record.weight_error for name, record in read_records(provenance).items()},
        provenance.get("corrected_biases", {}),
    )
    total, done = checkpoint.nbytes, 0
    for number, layer in enumerate(layers.values(), 1):
        try:
            problems += _check_layer(checkpoint, layer, original, recorded)
        except (FoundryError, RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            problems.append(f"{layer.name}: the layer cannot be decoded: {error}")
        done += layer.nbytes
        if on_progress:
            on_progress(done, total, numbered("layer", number, len(layers), layer.name))
    problems += soundness_problems(opened, checkpoint, layers)
    if not problems:
        problems += not_understood(checkpoint)
    return VerifyResult(
        problems=tuple(problems),
        layers=len(layers),
        quantized=sum(layer.marker is not None for layer in layers.values()),
        compared_with_source=original is not None,
        notes=needs_newer_comfyui(layers),
    )


def _check_announcement(checkpoint: TensorSource, layers: dict[str, StoredLayer]) -> Iterator[str]:
    """Compare the markers with the header's ``_quantization_metadata``, if both exist.

    A file may have no marker tensors at all, but if some layers have them, all must.
    """
    announced = announced_markers(checkpoint)
    has_markers = any(MARKER in layer.tensors for layer in layers.values())
    for name, marker in announced.items():
        layer = layers.get(name)
        if layer is None:
            yield f"{name}: the header announces this layer, but it has no weight"
        elif layer.marker != marker:
            yield f"{name}: the marker is {layer.marker}, but the header says {marker}"
        elif has_markers and MARKER not in layer.tensors:
            yield f"{name}: the marker {name}.{MARKER} is missing, but other layers have theirs"
    for name, layer in layers.items():
        if announced and layer.marker is not None and name not in announced:
            yield f"{name}: the layer has a marker, but the header does not announce it"


def _check_names(layers: dict[str, StoredLayer], original: TensorSource) -> Iterator[str]:
    """Check that all tensors of the source are there, and no others except our own."""
    stored = {
        info.name
        for layer in layers.values()
        for suffix, info in layer.tensors.items()
        if suffix in ("", "weight", "bias") or layer.marker is None
    }
    for name in original.tensors:
        if name not in stored:
            yield f"{name}: the checkpoint does not have this tensor of the source"
    for name in sorted(stored - set(original.tensors)):
        yield f"{name}: the source does not have this tensor of the checkpoint"


def _check_rest(rest: TensorSource | None, original: TensorSource | None) -> Iterator[str]:
    """Check that tensors beside the model, if they were copied, are complete and bit-equal."""
    if rest is None:
        return
    wanted = original.tensors if original else {}
    for name in sorted(set(rest.tensors) ^ set(wanted)):
        yield f"{name}: only one of source and checkpoint has this tensor beside the model"
    if original is not None:
        for name in set(rest.tensors) & set(wanted):
            yield from _check_equal(rest, name, original)


def _check_layer(
    checkpoint: TensorSource,
    layer: StoredLayer,
    original: TensorSource | None,
    recorded: _Recorded,
) -> Iterator[str]:
    if layer.marker is None:
        yield from _check_unquantized(checkpoint, layer, original)
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
    specs = fmt.tensor_specs(shape, torch.bfloat16)
    wrong = list(_check_specs(layer, specs))
    yield from wrong
    if wrong:
        return
    yield from _check_scales(checkpoint, layer, fmt)
    error = recorded.errors.get(layer.name)
    yield from _check_weight(checkpoint, layer, fmt, shape, original, error)
    if "bias" not in layer.tensors:
        return
    bias = layer.tensors["bias"].name
    digest = recorded.biases.get(layer.name)
    if digest is None:
        yield from _check_equal(checkpoint, bias, original)
    elif tensor_digest(checkpoint.load(bias)) != digest:
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
    """Return whether loaders accept the dtype: they view one-byte block scales as they need."""
    is_byte = found.itemsize == wanted.itemsize == 1
    return found == wanted or (suffix != "weight" and is_byte)


def _check_scales(checkpoint: TensorSource, layer: StoredLayer, fmt: WeightFormat) -> Iterator[str]:
    for suffix, info in layer.tensors.items():
        if suffix in ("weight", BIAS, MARKER):
            continue
        values = fmt.read_scale(suffix, checkpoint.load(info.name))
        if not bool(torch.isfinite(values).all()):
            yield f"{layer.name}: {suffix} holds NaN or infinite values"
        elif suffix not in fmt.signed and bool((values < 0).any()):
            yield f"{layer.name}: {suffix} is negative"
        elif values.numel() == 1 and float(values) == 0:
            yield f"{layer.name}: {suffix} is zero"
        if suffix == INPUT_SCALE and info.dtype != torch.float32:
            yield f"{layer.name}: input_scale is {info.dtype}, but loaders need float32"


def _check_weight(
    checkpoint: TensorSource,
    layer: StoredLayer,
    fmt: WeightFormat,
    shape: tuple[int, ...],
    original: TensorSource | None,
    recorded_error: float | None,
) -> Iterator[str]:
    """Decode the weight in bands of rows and compare it with the source."""
    tensors = {
        suffix: checkpoint.load(layer.tensors[suffix].name)
        for suffix in fmt.tensor_specs(shape, torch.bfloat16)
    }
    name = f"{layer.name}.weight"
    source = original.load(name) if original is not None and name in original.tensors else None
    # Values relative to the largest one, so that their squares do not overflow.
    unit = (float(tensor_amax(source)) if source is not None else 0.0) or 1.0
    squared_error = squared_norm = 0.0
    for rows in row_slices(shape[0], prod(shape[1:])):
        decoded = fmt.decode(tensors, shape, rows)
        if not bool(torch.isfinite(decoded).all()):
            yield f"{layer.name}: rows {rows.start}-{rows.stop} decode to NaN or infinite values"
            return
        if source is None:
            continue
        wanted = source[rows].float().div_(unit)
        norm = float(wanted.square().sum(dtype=torch.float64))
        error = float(decoded.div_(unit).sub_(wanted).square_().sum(dtype=torch.float64))
        squared_norm, squared_error = squared_norm + norm, squared_error + error
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


def _check_unquantized(
    checkpoint: TensorSource, layer: StoredLayer, original: TensorSource | None
) -> Iterator[str]:
    weight = layer.tensors.get("weight")
    if weight is not None and not weight.dtype.is_floating_point:
        yield (
            f"{layer.name}: the weight is {weight.dtype} but has no marker, so ComfyUI would "
            "misread it"
        )
    for info in layer.tensors.values():
        yield from _check_equal(checkpoint, info.name, original)


def _check_equal(
    checkpoint: TensorSource, name: str, original: TensorSource | None
) -> Iterator[str]:
    """Check that an unquantized tensor is bit-equal to the source, cast to the stored dtype."""
    stored = checkpoint.load(name)
    if original is None or name not in original.tensors:
        return
    wanted = original.load(name)
    if stored.shape != wanted.shape:
        yield (
            f"{name}: the shape is {tuple(stored.shape)}, but {tuple(wanted.shape)} in the source"
        )
    elif not torch.equal(_bits(stored), _bits(wanted.to(stored.dtype))):
        yield f"{name}: the tensor is not quantized, but differs from the source"


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view as bytes, in which NaN equals itself."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
