"""Whose convention a quantized file follows, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ...errors import CheckpointError, SourceError
from ..base import TensorSource
from ..decoded import DecodedSource
from ..stored_layers import QUANTIZATION_METADATA
from ..stored_weight import StoredWeight
from .comfyui import ComfyUI
from .compressed_tensors import CompressedTensors
from .convention import Convention, Found
from .float8_scaled import Float8Scaled
from .lightx2v import LightX2V
from .modelopt import ModelOpt
from .scaled_codes import ScaledCodes
from .unreadable import is_readable, leftovers, require_readable, unknown_weights

_MARKED = ComfyUI()
#: Of files without markers. Asked in this order; a later one does not see what an earlier one
#: recognised.
CONVENTIONS: tuple[Convention, ...] = (
    Float8Scaled(),
    LightX2V(),
    ModelOpt(),
    CompressedTensors(),
    ScaledCodes(),
)


def decoded(source: TensorSource) -> TensorSource:
    """Return the model a source stands for: itself if nothing in it is quantized.

    8-bit floats without any scale are no quantized weights: their values are what they are.

    Raises:
        SourceError: a layer is stored in a way that is not known here, or lacks its scales.
        CheckpointError: a marker is damaged, or does not fit its layer.
    """
    weights = {name: describe() for name, describe in _find(source).items()}
    used = _parts(weights)
    require_readable(source, used)
    markers = leftovers(source)
    plain = [
        name
        for name, info in source.tensors.items()
        if name not in used | markers and info.dtype.is_floating_point and info.dtype.itemsize == 1
    ]
    if not weights and not plain and not markers:
        return source
    notes = [f"{len(plain)} tensors are plain 8-bit floats without scales"] if plain else []
    notes += _quality_notes(weights)
    return DecodedSource(source, weights, tuple(notes), hidden=markers)


def decoded_where_known(source: TensorSource) -> TensorSource:
    """Return a source to look into: as `decoded`, but what is not understood is listed too.

    Such a weight has the shape that is stored and says why it is not known when it is loaded.

    Raises:
        CheckpointError: a marker is no JSON.
    """
    weights, refused = {}, {}
    for name, describe in _find(source).items():
        try:
            weights[name] = describe()
        except (SourceError, CheckpointError) as error:
            refused[name] = error
    weights |= unknown_weights(source, _parts(weights), refused)
    return DecodedSource(source, weights, hidden=leftovers(source))


def _find(source: TensorSource) -> Found:
    """Return what describes every quantized weight, by the name it has when decoded."""
    found = dict(_MARKED.find(source))
    # What ComfyUI's own files leave unmarked is damaged: to guess would turn nibbles round.
    if found or QUANTIZATION_METADATA in source.metadata:
        return found
    for convention in CONVENTIONS:
        for name, describe in convention.find(source).items():
            found.setdefault(name, describe)
    return found


def _parts(weights: Mapping[str, StoredWeight]) -> set[str]:
    return {name for stored in weights.values() for name in stored.names}


def _quality_notes(weights: Mapping[str, StoredWeight]) -> list[str]:
    counts = Counter(stored.label for stored in weights.values())
    return [
        f"{count} weights are quantized already, as {label}: what is not taken over as it is "
        "cannot be better than that"
        for label, count in counts.most_common()
    ]


__all__ = ["CONVENTIONS", "Convention", "decoded", "decoded_where_known", "is_readable"]
