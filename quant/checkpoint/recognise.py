"""Check that a calibration is from the model that a quantized checkpoint was made from.

The weights of the checkpoint differ from the fingerprinted ones, and biases of quantized layers may
have been corrected. So the check compares the shapes of all layers and the other 1-D tensors.
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
) -> int:
    """Refuse a fingerprint that is from another model than the checkpoint.

    Returns:
        number of tensors whose values were compared; 0 means that only shapes were compared.

    Raises:
        CalibrationError: the models differ; the message names the difference.
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
        raise CalibrationError(
            f"the calibration is from a different model: {difference}. Choose the calibration of "
            "the model that the checkpoint was made from"
        )
    return len(probe)


def _logical_shape(layer: StoredLayer, expected: Shape | None) -> Shape:
    """Return the shape of a weight; for a padded one the expected shape, if it fits."""
    fmt = layer.format
    if fmt is not None and expected is not None and len(expected) == 2:
        stored = fmt.tensor_specs(expected, torch.bfloat16)["weight"].shape
        if stored == layer.weight.shape:
            return expected
    return layer.shape()


def _may_be_corrected(name: str, layers: Mapping[str, StoredLayer]) -> bool:
    layer = layers.get(name.removesuffix(".bias"))
    return name.endswith(".bias") and layer is not None and layer.marker is not None
