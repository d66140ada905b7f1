"""A checkpoint as an unquantized model would hold it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..errors import SourceError
from ..sources import TensorSource
from ..sources.stored_layers import StoredLayer, read_layout


def decoded_tensors(checkpoint: TensorSource) -> dict[str, torch.Tensor]:
    """Return every tensor of the model by name, quantized weights decoded to float32.

    Raises:
        CheckpointError: a marker is damaged.
        SourceError: a layer is stored in a format not known here.
    """
    return {
        name: tensor
        for layer in read_layout(checkpoint).values()
        for name, tensor in _decoded(checkpoint, layer)
    }


def _decoded(source: TensorSource, layer: StoredLayer) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the layer's tensors as an unquantized file would hold them, by full name."""
    if layer.marker is None:
        yield from ((info.name, source.load(info.name)) for info in layer.tensors.values())
        return
    if layer.format is None:
        raise SourceError(f"{layer.name} is stored as {layer.format_name}, not known here")
    stored = {suffix: source.load(info.name) for suffix, info in layer.tensors.items()}
    yield f"{layer.name}.weight", layer.format.decode(stored, layer.shape())
    if "bias" in stored:
        yield f"{layer.name}.bias", stored["bias"]
