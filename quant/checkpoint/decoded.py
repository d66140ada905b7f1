"""Decode a checkpoint to the tensors of an unquantized model."""

from __future__ import annotations

import torch

from ..sources import TensorSource, decoded


def decoded_tensors(checkpoint: TensorSource) -> dict[str, torch.Tensor]:
    """Return every tensor of the model by name, quantized weights decoded to float32.

    Raises:
        CheckpointError: a marker is damaged.
        SourceError: a layer is stored in an unknown format.
    """
    model = decoded(checkpoint)
    return {name: model.load(name) for name in model.tensors}
