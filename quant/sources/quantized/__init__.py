"""Whose convention a quantized file follows, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..base import TensorSource
from ..decoded import DecodedSource
from ..remaining import RemainingTensors
from ..stored_weight import StoredWeight
from .comfyui import comfyui_weights
from .compressed_tensors import compressed_tensors_weights
from .float8_scaled import float8_scaled_weights
from .lightx2v import lightx2v_weights
from .modelopt import modelopt_weights
from .scaled_codes import scaled_codes_weights
from .unreadable import leftovers, require_readable

#: Asked in this order; what one recognises the next do not see.
_CONVENTIONS: tuple[Callable[[TensorSource], Mapping[str, StoredWeight]], ...] = (
    comfyui_weights,
    float8_scaled_weights,
    lightx2v_weights,
    modelopt_weights,
    compressed_tensors_weights,
    scaled_codes_weights,
)


def find_stored_weights(source: TensorSource) -> dict[str, StoredWeight]:
    """Return every quantized weight of a source by the name it has when decoded.

    8-bit floats without any scale are no quantized weights: their values are what they are.

    Raises:
        SourceError: a layer is stored in a way that is not known here, or lacks its scales.
        CheckpointError: a marker is damaged.
    """
    found: dict[str, StoredWeight] = {}
    for convention in _CONVENTIONS:
        used = {name for weight in found.values() for name in weight.names}
        found.update(convention(RemainingTensors(source, used)))
    return found


def decoded(source: TensorSource) -> TensorSource:
    """Return the model a source stands for: itself if nothing in it is quantized.

    Raises:
        SourceError, CheckpointError: as `find_stored_weights`.
    """
    weights = find_stored_weights(source)
    used = {name for stored in weights.values() for name in stored.names}
    require_readable(source, used)
    markers = leftovers(source)
    plain = [
        name
        for name, info in source.tensors.items()
        if name not in used | markers and info.dtype.is_floating_point and info.dtype.itemsize == 1
    ]
    if not weights and not plain and not markers:
        return source
    notes = ()
    if plain:
        notes = (f"{len(plain)} tensors are plain 8-bit floats without scales",)
    return DecodedSource(source, weights, notes, hidden=markers)


__all__ = ["decoded", "find_stored_weights"]
