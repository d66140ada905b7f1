"""Recognise the convention of each quantized weight in a file, and decode the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ...errors import CheckpointError, SourceError
from ..base import TensorSource
from ..decoded import DecodedSource
from ..stored_layers import MARKER, QUANTIZATION_METADATA
from ..stored_weight import StoredWeight
from .comfyui import ComfyUI
from .compressed_tensors import CompressedTensors
from .convention import Convention, Found
from .float8_scaled import Float8Scaled
from .full_range import require_plain
from .input_scales import odd_input_scales
from .layout_evidence import LAYOUTS
from .lightx2v import LightX2V
from .lost_markers import require_plain_int8
from .other_scales import OtherScales
from .scale_map import with_scale_map
from .scale_reading import require_factors
from .scaled_codes import CODES, ScaledCodes
from .unmarked_nvfp4 import UnmarkedNVFP4
from .unreadable import is_readable, leftovers, require_readable, unknown_weights

# How many layers a note names.
_NAMED = 4
#: Scales that multiply by convention.
FACTORS = ("weight_scale", "scale_weight", "weight_scale_inv")
_MARKED = ComfyUI()
#: Conventions of files without markers, in the order in which they are tried. A weight that one
#: of them recognises is not offered to the next ones.
CONVENTIONS: tuple[Convention, ...] = (
    Float8Scaled(),
    LightX2V(),
    UnmarkedNVFP4(),
    CompressedTensors(),
    ScaledCodes(),
    OtherScales(),
)


def decoded(source: TensorSource, layout: str = "") -> TensorSource:
    """Return a source with its quantized weights decoded; the source itself if it has none.

    8-bit floats without a scale do not count as quantized, because they are plain values.

    Args:
        source: the file, without the prefix of its names.
        layout: whose layout NVFP4 weights without markers have (see `LAYOUTS`); empty: the file
            has to show it.

    Raises:
        SourceError: a layer follows an unknown convention, or lacks its scales.
        CheckpointError: a marker is damaged, or does not fit its layer.
    """
    source = with_scale_map(source)
    weights = {name: describe() for name, describe in _find(source, layout).items()}
    used = _parts(weights)
    require_readable(source, used)
    _require_values_fit(source, weights)
    markers = leftovers(source)
    plain = [
        name
        for name, info in source.tensors.items()
        if name not in used | markers and info.dtype.is_floating_point and info.dtype.itemsize == 1
    ]
    require_plain(source, plain)
    if not weights and not plain and not markers:
        return source
    notes = [f"{len(plain)} tensors are 8-bit floats without scales"] if plain else []
    notes += [*_quality_notes(weights), *_remarks(weights), *_odd_scale_notes(source)]
    result = DecodedSource(source, weights, tuple(notes), hidden=markers)
    # ComfyUI fails at markers of unquantized layers.
    result.comfyui_reads &= not any(name.endswith(f".{MARKER}") for name in markers)
    return result


def decoded_where_known(source: TensorSource, layout: str = "") -> TensorSource:
    """Return a source to inspect, with its weights decoded where possible.

    Unlike `decoded`, it also lists weights that cannot be decoded, with their stored shape. Loading
    such a weight raises an error with the reason.

    Raises:
        CheckpointError: a marker is not JSON.
    """
    weights, refused = {}, {}
    for name, describe in _find(source, layout).items():
        try:
            weights[name] = describe()
        except (SourceError, CheckpointError) as error:
            refused[name] = error
    weights |= unknown_weights(source, _parts(weights), refused)
    return DecodedSource(source, weights, hidden=leftovers(source))


def _find(source: TensorSource, layout: str) -> Found:
    """Return a function per quantized weight that describes it, by its name after decoding."""
    found = dict(_MARKED.find(source))
    # In a file with markers, an unmarked quantized weight is damage. Guessing its convention could
    # swap its nibbles.
    if found or QUANTIZATION_METADATA in source.metadata:
        return found
    for convention in CONVENTIONS:
        if isinstance(convention, UnmarkedNVFP4):
            convention = UnmarkedNVFP4(layout)
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


def _require_values_fit(source: TensorSource, weights: Mapping[str, StoredWeight]) -> None:
    """Refuse 8-bit weights without markers whose values show that they are read in a wrong way."""
    if QUANTIZATION_METADATA in source.metadata:
        return
    bare = {
        name: stored
        for name, stored in weights.items()
        if name in stored.names and source.info(name).dtype in CODES
        and f"{name.removesuffix('weight')}{MARKER}" not in stored.names
    }  # fmt: skip
    require_plain_int8(source, bare)
    for suffix in FACTORS:
        layers = [name.removesuffix(".weight") for name in bare]
        mine = [la for la in layers if f"{la}.{suffix}" in bare[f"{la}.weight"].names]
        require_factors(source, suffix, mine)


def _remarks(weights: Mapping[str, StoredWeight]) -> list[str]:
    counts = Counter(stored.remark for stored in weights.values() if stored.remark)
    return [f"{count} weights {remark}" for remark, count in counts.items()]


def _odd_scale_notes(source: TensorSource) -> list[str]:
    odd = odd_input_scales(source)
    if not odd:
        return []
    examples = ", ".join(f"{layer} ({scale:g})" for layer, scale in list(odd.items())[:_NAMED])
    more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
    return [
        f"{len(odd)} input scales of the source cannot be any and are dropped: {examples}{more}; "
        "calibrate for static scales"
    ]


__all__ = ["CONVENTIONS", "LAYOUTS", "Convention", "decoded", "decoded_where_known", "is_readable"]
