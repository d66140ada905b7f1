"""Two checkpoints of one model, layer by layer, each decoded through its own formats."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from ..compare import Difference, difference
from ..errors import CheckpointError, CompareError
from ..formats import KEEP
from ..formats.base import row_slices
from ..sources import PrefixedSource, TensorSource, find_prefix, in_comfy_names, open_tensors
from ..sources.stored_layers import StoredLayer, read_layout
from .verify import OnProgress

# A weight with one of these and no marker means more than its stored values.
_SCALES = ("weight_scale", "scale_weight")


@dataclass(frozen=True)
class LayerComparison:
    """One layer of both files.

    Errors are relative Frobenius norms of B's difference from A: of the decoded weight, and of
    the bias where there is one. Infinite where A is zero and B is not. ``bytes`` count all that
    belongs to the layer.
    """

    name: str
    shape: tuple[int, ...]
    format_a: str
    format_b: str
    relative_error: float
    bytes_a: int
    bytes_b: int
    bias_error: float | None = None


@dataclass(frozen=True)
class CheckpointComparison:
    """Two files.

    Attributes:
        a, b: their paths.
        layers: what both hold, in A's order.
        only_a, only_b: layers, or biases, that the other file lacks.
        not_compared: layers in a format this tool cannot decode.
        relative_error: of all compared weights and biases as one vector.
        bytes_a, bytes_b: of all tensors.
    """

    a: str
    b: str
    layers: tuple[LayerComparison, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    not_compared: tuple[str, ...]
    relative_error: float
    bytes_a: int
    bytes_b: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data; errors that are no finite number are null."""
        data = asdict(self)
        for record in (data, *data["layers"]):
            for key in ("relative_error", "bias_error"):
                if not math.isfinite(record.get(key) or 0.0):
                    record[key] = None
        return data


def compare_checkpoints(
    a: str | Path, b: str | Path, on_progress: OnProgress | None = None
) -> CheckpointComparison:
    """Compare the weights and biases of B with those of A, one layer in memory at a time.

    Raises:
        SourceError, CheckpointError: a file is unreadable or its markers are.
        CompareError: no layer can be compared, or one has different shapes.
    """
    with open_tensors(a) as file_a, open_tensors(b) as file_b:
        return compare_tensors(_in_comfy_names(file_a), _in_comfy_names(file_b), on_progress)


def _in_comfy_names(source: TensorSource) -> TensorSource:
    prefix = find_prefix(source.tensors)
    return in_comfy_names(PrefixedSource(source, prefix) if prefix else source)


def compare_tensors(
    a: TensorSource, b: TensorSource, on_progress: OnProgress | None = None
) -> CheckpointComparison:
    """Compare two open checkpoints; see `compare_checkpoints`."""
    layers_a, layers_b = read_layout(a), read_layout(b)
    pairs = [(layer, layers_b[name]) for name, layer in layers_a.items() if name in layers_b]
    if not pairs:
        raise CompareError(
            f"{a.description} and {b.description} have no layer in common; are they of one model?"
        )
    compared, not_compared = [], []
    everything = Difference()
    total, done = sum(la.nbytes + lb.nbytes for la, lb in pairs), 0
    for layer_a, layer_b in pairs:
        if _is_known(layer_a) and _is_known(layer_b):
            record, weight_and_bias = _compare_layer(a, layer_a, b, layer_b)
            compared.append(record)
            everything += weight_and_bias
        else:
            not_compared.append(layer_a.name)
        done += layer_a.nbytes + layer_b.nbytes
        if on_progress:
            on_progress(done, total, layer_a.name)
    if not compared:
        raise CompareError(
            f"{a.description} and {b.description} have layers in common, but none in formats this "
            "tool can decode"
        )
    return CheckpointComparison(
        a=a.description,
        b=b.description,
        layers=tuple(compared),
        only_a=_missing(layers_a, layers_b),
        only_b=_missing(layers_b, layers_a),
        not_compared=tuple(not_compared),
        relative_error=everything.relative_error,
        bytes_a=a.nbytes,
        bytes_b=b.nbytes,
    )


def _missing(layers: dict[str, StoredLayer], others: dict[str, StoredLayer]) -> tuple[str, ...]:
    """Return what ``others`` lack: layers, and biases of layers they have."""
    names = []
    for name, layer in layers.items():
        if name not in others:
            names.append(name)
        elif "bias" in layer.tensors and "bias" not in others[name].tensors:
            names.append(f"{name}.bias")
    return tuple(names)


def _is_known(layer: StoredLayer) -> bool:
    if layer.marker is not None:
        return layer.format is not None
    return not any(suffix in layer.tensors for suffix in _SCALES)


def _compare_layer(
    a: TensorSource, layer_a: StoredLayer, b: TensorSource, layer_b: StoredLayer
) -> tuple[LayerComparison, Difference]:
    """Return the record of a layer, and the difference of its weight and bias together."""
    shape = _common_shape(layer_a, layer_b)
    rows, columns = (shape[0], prod(shape[1:])) if shape else (1, 1)
    rows_of_a, rows_of_b = _decoder(a, layer_a, shape), _decoder(b, layer_b, shape)
    weight = Difference()
    for band in row_slices(rows, columns):
        weight += difference(rows_of_a(band), rows_of_b(band))
    bias = _compare_bias(a, layer_a, b, layer_b)
    record = LayerComparison(
        name=layer_a.name,
        shape=shape,
        format_a=layer_a.format_name,
        format_b=layer_b.format_name,
        relative_error=weight.relative_error,
        bytes_a=layer_a.nbytes,
        bytes_b=layer_b.nbytes,
        bias_error=bias.relative_error if bias else None,
    )
    return record, weight + bias if bias else weight


def _common_shape(layer_a: StoredLayer, layer_b: StoredLayer) -> tuple[int, ...]:
    """Return the logical shape of both weights; one may be stored padded and not say so.

    Raises:
        CompareError: the shapes differ.
    """
    shape_a, shape_b = layer_a.shape(), layer_b.shape()
    for shape in (shape_a, shape_b):
        if _is_stored_as(layer_a, shape) and _is_stored_as(layer_b, shape):
            return shape
    raise CompareError(
        f"{layer_a.name}: its weight is {'x'.join(map(str, shape_a))} in the first file and "
        f"{'x'.join(map(str, shape_b))} in the second; these are different models"
    )


def _is_stored_as(layer: StoredLayer, shape: tuple[int, ...]) -> bool:
    """Whether a weight of this logical shape would have the shape that is stored."""
    stored = layer.weight.shape
    specs = (layer.format or KEEP).tensor_specs
    if layer.format is not None and layer.format.is_quantized and len(shape) != 2:
        return False
    return len(shape) == len(stored) and specs(shape, torch.bfloat16)["weight"].shape == stored


def _decoder(
    source: TensorSource, layer: StoredLayer, shape: tuple[int, ...]
) -> Callable[[slice], torch.Tensor]:
    """Load a layer's weight as stored; return what decodes rows of it to float32.

    Raises:
        CheckpointError: scales are missing or of a wrong size.
    """
    fmt = layer.format or KEEP
    for suffix, spec in fmt.tensor_specs(shape, torch.bfloat16).items():
        info = layer.weight if suffix == "weight" else layer.tensors.get(suffix)
        if info is None or prod(info.shape) != prod(spec.shape):
            found = "missing" if info is None else f"of shape {info.shape}, not {spec.shape}"
            raise CheckpointError(f"{source.description}: {layer.name}.{suffix} is {found}")
    tensors = {
        suffix: source.load(info.name)
        for suffix, info in layer.tensors.items()
        if suffix.startswith("weight_")
    }
    weight = source.load(layer.weight.name)
    tensors["weight"] = weight if weight.dim() else weight.reshape(1)
    return lambda rows: fmt.decode(tensors, shape, rows)


def _compare_bias(
    a: TensorSource, layer_a: StoredLayer, b: TensorSource, layer_b: StoredLayer
) -> Difference | None:
    if "bias" not in layer_a.tensors or "bias" not in layer_b.tensors:
        return None
    try:
        return difference(
            a.load(layer_a.tensors["bias"].name), b.load(layer_b.tensors["bias"].name)
        )
    except CompareError as error:
        raise CompareError(f"{layer_a.name}.bias: {error}") from error
