"""Recognise the convention of each quantized weight in a file, and decode the weights."""

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
#: Conventions of files without markers, in the order in which they are tried. A weight that one
#: of them recognises is not offered to the next ones.
CONVENTIONS: tuple[Convention, ...] = (
    Float8Scaled(),
    LightX2V(),
    ModelOpt(),
    CompressedTensors(),
    ScaledCodes(),
)


def decoded(source: TensorSource) -> TensorSource:
    """Return a source with its quantized weights decoded; the source itself if it has none.

    8-bit floats without a scale do not count as quantized, because they are plain values.

    Raises:
        SourceError: a layer follows an unknown convention, or lacks its scales.
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
    notes = [f"{len(plain)} tensors are 8-bit floats without scales"] if plain else []
    notes += _quality_notes(weights)
    return DecodedSource(source, weights, tuple(notes), hidden=markers)


def decoded_where_known(source: TensorSource) -> TensorSource:
    """Return a source to inspect, with its weights decoded where possible.

    Unlike `decoded`, it also lists weights that cannot be decoded, with their stored shape. Loading
    such a weight raises an error with the reason.

    Raises:
        CheckpointError: a marker is not JSON.
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
    """Return a function per quantized weight that describes it, by its name after decoding."""
    found = dict(_MARKED.find(source))
    # In a file with markers, an unmarked quantized weight is damage. Guessing its convention could
    # swap its nibbles.
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
        f"{count} weights are quantized already, as {label}: weights that get another format lose "
        "twice, so start from the 16-bit file if you can"
        for label, count in counts.most_common()
    ]


__all__ = ["CONVENTIONS", "Convention", "decoded", "decoded_where_known", "is_readable"]
