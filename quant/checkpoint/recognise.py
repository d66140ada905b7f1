"""Whether statistics are of the model that a quantized checkpoint was made from.

Its weights are no longer those that were fingerprinted, and biases of quantized layers may have
been corrected. What is left to go by are the shapes of all layers and the other 1-D tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import CalibrationError
from ..fingerprint import ModelFingerprint
from ..sources import TensorSource
from ..sources.stored_layers import StoredLayer

Shape = tuple[int, ...]


def require_same_model(
    fingerprint: ModelFingerprint,
    checkpoint: TensorSource,
    layers: Mapping[str, StoredLayer],
    what: str = "the statistics",
) -> int:
    """Refuse a fingerprint of another model than the checkpoint's.

    Returns:
        how many tensors' values were compared; with 0 only shapes speak for the same model.

    Raises:
        CalibrationError: naming the difference.
    """
    shapes = {
        layer.name: _logical_shape(layer, fingerprint.shapes.get(layer.name))
        for layer in layers.values()
        if "weight" in layer.tensors
    }
    probe = {
        name: tuple(checkpoint.load(name).flatten()[: len(values)].float().tolist())
        for name, values in fingerprint.probe.items()
        if name in checkpoint.tensors and not _may_be_corrected(name, layers)
    }
    found = ModelFingerprint(
        {name: shape for name, shape in shapes.items() if len(shape) == 2}, probe
    )
    difference = fingerprint.difference(found)
    if difference is not None:
        raise CalibrationError(f"{what} are from a different model: {difference}")
    return len(probe)


def _logical_shape(layer: StoredLayer, expected: Shape | None) -> Shape:
    """Return the shape of a weight; one that is padded is as large as expected if it can be."""
    fmt = layer.format
    if fmt is not None and expected is not None and len(expected) == 2:
        stored = fmt.tensor_specs(expected, torch.bfloat16)["weight"].shape
        if stored == layer.weight.shape:
            return expected
    return layer.shape()


def _may_be_corrected(name: str, layers: Mapping[str, StoredLayer]) -> bool:
    layer = layers.get(name.removesuffix(".bias"))
    return name.endswith(".bias") and layer is not None and layer.marker is not None
