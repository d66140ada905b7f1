"""Compare two checkpoints of one model layer by layer, each decoded from its own formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import prod
from operator import le
from pathlib import Path
from typing import Any

import torch

from ..difference import Difference, difference
from ..errors import CompareError, SourceError
from ..formats.base import row_slices
from ..planning.inventory import Layer, take_inventory
from ..progress import OnProgress, numbered
from ..sources import TensorSource, is_readable, open_to_look
from .inspect import stored_format


@dataclass(frozen=True)
class LayerComparison:
    """One layer of both files.

    Errors are relative Frobenius norms of B's difference from A, for the decoded weight and for the
    bias if there is one. They are infinite if A is zero and B is not. ``bytes_a`` and ``bytes_b``
    count all tensors of the layer.
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
    """The comparison of two files.

    Attributes:
        a, b: paths of the files.
        layers: layers that both files have, in A's order.
        only_a, only_b: layers, or biases, that the other file lacks.
        not_compared: layers in a format that this tool cannot decode.
        relative_error: relative error of all compared weights and biases as one vector.
        bytes_a, bytes_b: bytes of all tensors.
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
        """Return JSON-serialisable data; errors that are not finite are null."""
        data = asdict(self)
        for record in (data, *data["layers"]):
            for key in ("relative_error", "bias_error"):
                if not math.isfinite(record.get(key) or 0.0):
                    record[key] = None
        return data


def compare_checkpoints(
    a: str | Path, b: str | Path, on_progress: OnProgress | None = None, layout: str = ""
) -> CheckpointComparison:
    """Compare the weights and biases of B with those of A, one layer in memory at a time.

    ``layout`` is that of NVFP4 weights without markers (see `open_source`).

    Raises:
        SourceError, CheckpointError: a file or its markers cannot be read.
        CompareError: no layer can be compared, or a layer has different shapes.
    """
    with open_to_look(a, layout) as file_a, open_to_look(b, layout) as file_b:
        return compare_tensors(file_a, file_b, on_progress)


def compare_tensors(
    a: TensorSource, b: TensorSource, on_progress: OnProgress | None = None
) -> CheckpointComparison:
    """Compare two open checkpoints; see `compare_checkpoints`."""
    layers_a, layers_b = take_inventory(a).layers, take_inventory(b).layers
    pairs = [(layer, layers_b[name]) for name, layer in layers_a.items() if name in layers_b]
    if not pairs:
        raise CompareError(
            f"{a.description} and {b.description} have no layer in common; compare two files of "
            "the same model"
        )
    compared, not_compared = [], []
    everything = Difference()
    total, done = sum(la.nbytes + lb.nbytes for la, lb in pairs), 0
    for number, (layer_a, layer_b) in enumerate(pairs, 1):
        if is_readable(layer_a.tensor.stored) and is_readable(layer_b.tensor.stored):
            record, weight_and_bias = _compare_layer(a, layer_a, b, layer_b)
            compared.append(record)
            everything += weight_and_bias
        else:
            _require_intact(a, layer_a)
            _require_intact(b, layer_b)
            not_compared.append(layer_a.name)
        done += layer_a.nbytes + layer_b.nbytes
        if on_progress:
            on_progress(done, total, numbered("layer", number, len(pairs), layer_a.name))
    if not compared:
        raise CompareError(
            f"{a.description} and {b.description} have layers in common, but none in formats that "
            "this tool can decode"
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


def _require_intact(source: TensorSource, layer: Layer) -> None:
    """Raise `CheckpointError` if a layer is unreadable because it is damaged."""
    stored = source.stored_weight(layer.tensor.name)
    if stored is not None and not is_readable(stored):
        with suppress(SourceError):  # an unknown format is not damage
            stored.read()


def _missing(layers: Mapping[str, Layer], others: Mapping[str, Layer]) -> tuple[str, ...]:
    """Return the layers that ``others`` lack, and the biases of layers that they have."""
    names, biases = [], {info.name for layer in others.values() for info in layer.companions}
    for name, layer in layers.items():
        if name not in others and name not in biases:
            names.append(name)
        elif name in others and layer.companions and not others[name].companions:
            names += [info.name for info in layer.companions]
    return tuple(names)


def _compare_layer(
    a: TensorSource, layer_a: Layer, b: TensorSource, layer_b: Layer
) -> tuple[LayerComparison, Difference]:
    """Return the record of a layer, and the difference of its weight and bias together."""
    shape = _common_shape(a, layer_a, b, layer_b)
    rows, columns = (shape[0], prod(shape[1:])) if shape else (1, 1)
    rows_of_a, rows_of_b = _reader(a, layer_a), _reader(b, layer_b)
    inside = tuple(slice(0, size) for size in shape[1:])  # only one of the files may be padded
    weight = Difference()
    for band in row_slices(rows, columns):
        values = (read(band)[(slice(None), *inside)] for read in (rows_of_a, rows_of_b))
        weight += difference(*values)
    bias = _compare_bias(a, layer_a, b, layer_b)
    record = LayerComparison(
        name=layer_a.name,
        shape=shape,
        format_a=stored_format(layer_a.tensor),
        format_b=stored_format(layer_b.tensor),
        relative_error=weight.relative_error,
        bytes_a=layer_a.nbytes,
        bytes_b=layer_b.nbytes,
        bias_error=bias.relative_error if bias else None,
    )
    return record, weight + bias if bias else weight


def _common_shape(
    a: TensorSource, layer_a: Layer, b: TensorSource, layer_b: Layer
) -> tuple[int, ...]:
    """Return the logical shape of both weights. One may be padded without a note of that.

    Raises:
        CompareError: the shapes differ.
    """
    if _may_have_shape(a, layer_a, layer_b.shape):
        return layer_b.shape
    if _may_have_shape(b, layer_b, layer_a.shape):
        return layer_a.shape
    raise CompareError(
        f"{layer_a.name}: the weight is {'x'.join(map(str, layer_a.shape))} in the first file and "
        f"{'x'.join(map(str, layer_b.shape))} in the second, so these are different models; "
        "compare two files of the same model"
    )


def _may_have_shape(source: TensorSource, layer: Layer, shape: tuple[int, ...]) -> bool:
    """Return whether a weight has this shape, or the larger one that this is padded to."""
    stored = source.stored_weight(layer.tensor.name)
    smaller = len(shape) == len(layer.shape) and all(map(le, shape, layer.shape))
    if stored is None or stored.format is None or not smaller:
        return layer.shape == shape
    specs = (stored.format.tensor_specs(s, torch.bfloat16) for s in (shape, stored.shape))
    return next(specs)["weight"].shape == next(specs)["weight"].shape


def _reader(source: TensorSource, layer: Layer) -> Callable[[slice], torch.Tensor]:
    """Load a layer's stored weight; return a function that decodes its rows to float32."""
    stored = source.stored_weight(layer.tensor.name)
    if stored is not None:
        return stored.read()
    weight = source.load(layer.tensor.name)
    weight = weight if weight.dim() else weight.reshape(1)
    return lambda rows: weight[rows].float()


def _compare_bias(
    a: TensorSource, layer_a: Layer, b: TensorSource, layer_b: Layer
) -> Difference | None:
    if not layer_a.companions or not layer_b.companions:
        return None
    try:
        return difference(
            *(
                source.load(layer.companions[0].name)
                for source, layer in ((a, layer_a), (b, layer_b))
            )
        )
    except CompareError as error:
        raise CompareError(f"{layer_a.name}.bias: {error}") from error
