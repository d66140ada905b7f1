"""How a stored checkpoint is organised: layers, their tensors, their markers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import CheckpointError, SourceError
from ..formats import FORMATS, WeightFormat, format_of_marker
from .base import TensorInfo, TensorSource, dtype_name

#: Suffixes of the tensors that ComfyUI reads beside those of a format.
MARKER, INPUT_SCALE, BIAS = "comfy_quant", "input_scale", "bias"
QUANTIZATION_METADATA = "_quantization_metadata"

#: Suffixes of the tensors that belong to a layer's weight.
SUFFIXES = frozenset(
    {
        *(name for fmt in FORMATS.values() for name in fmt.tensor_specs((256, 256), torch.float32)),
        *(BIAS, INPUT_SCALE, MARKER),
        *("scale_weight", "scale_input"),  # of files from before markers
    }
)

_SHORT_DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a checkpoint: its tensors by suffix, and its marker if it has one.

    ``tensors`` of a bare parameter (``blocks.0.modulation``) has the one key ``""``.
    """

    name: str
    tensors: Mapping[str, TensorInfo]
    marker: Mapping[str, Any] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def weight(self) -> TensorInfo:
        """The weight, or the only tensor."""
        return self.tensors.get("weight") or next(iter(self.tensors.values()))

    @property
    def format(self) -> WeightFormat | None:
        """The format the marker names, if this pack knows it."""
        if self.marker is None:
            return None
        return format_of_marker(self.marker, {s: info.shape for s, info in self.tensors.items()})

    @property
    def format_name(self) -> str:
        """What to call the format: ours, the marker's, what the file calls it, or the dtype."""
        if self.marker is not None:
            return self.format.name if self.format else str(self.marker.get("format"))
        if self.weight.stored:
            return self.weight.stored.label
        return short_dtype(self.weight.dtype)

    def shape(self) -> tuple[int, ...]:
        """Return the logical shape of the weight, unpacked; rows as the bias says if there is one.

        A weight padded in its columns cannot be told from an unpadded one.
        """
        stored, fmt = self.weight.shape, self.format
        if fmt is None or len(stored) != 2:
            return stored
        bias = self.tensors.get(BIAS)
        return fmt.logical_shape(stored, bias.shape[0] if bias and bias.shape else None)


def short_dtype(dtype: torch.dtype) -> str:
    """Return what to call a dtype: ``bf16``, ``float8_e4m3fn``."""
    return _SHORT_DTYPES.get(dtype, dtype_name(dtype))


def read_layout(source: TensorSource) -> dict[str, StoredLayer]:
    """Group a checkpoint's tensors into layers and parse its markers.

    Raises:
        CheckpointError: a marker that is no JSON object.
    """
    grouped: dict[str, dict[str, TensorInfo]] = {}
    for name, info in source.tensors.items():
        base, _, leaf = name.rpartition(".")
        is_part = leaf in SUFFIXES and bool(base) and f"{base}.weight" in source.tensors
        key, suffix = (base, leaf) if is_part else (name, "")
        grouped.setdefault(key, {})[suffix] = info
    announced = announced_markers(source)
    layers: dict[str, StoredLayer] = {}
    for name, tensors in grouped.items():
        marker = announced.get(name)
        if MARKER in tensors:
            marker = _read_marker(source, tensors[MARKER].name)
        layers[name] = StoredLayer(name, tensors, marker)
    return layers


def announced_markers(source: TensorSource) -> dict[str, Mapping[str, Any]]:
    """Return the markers in the header's ``_quantization_metadata``.

    Raises:
        CheckpointError: the metadata is not the JSON ComfyUI expects.
    """
    text = source.metadata.get(QUANTIZATION_METADATA)
    if text is None:
        return {}
    try:
        layers = dict(json.loads(text)["layers"])
        if not all(isinstance(marker, dict) and "format" in marker for marker in layers.values()):
            raise ValueError("a layer names no format")
        # A full checkpoint announces by the names in the file, its text encoder's among them.
        inside = {k: v for k, v in layers.items() if k.startswith(source.prefix)}
        return {k.removeprefix(source.prefix): v for k, v in (inside or layers).items()}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source.description}: its {QUANTIZATION_METADATA} is not valid ({error})"
        ) from error


def joined_metadata(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of two shards: the first's, with the layers that either announces.

    A damaged announcement is kept by itself, for `announced_markers` to refuse.
    """
    joined = {**second, **first}
    layers: dict[str, Any] = {}
    for metadata in (second, first):
        text = metadata.get(QUANTIZATION_METADATA)
        if text is None:
            continue
        try:
            layers |= json.loads(text)["layers"]
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            return {**joined, QUANTIZATION_METADATA: text}
        joined[QUANTIZATION_METADATA] = json.dumps({"format_version": "1.0", "layers": layers})
    return joined


def _read_marker(source: TensorSource, name: str) -> Mapping[str, Any]:
    try:
        marker = json.loads(bytes(source.load(name).reshape(-1).view(torch.uint8).tolist()))
    except (ValueError, SourceError) as error:
        raise CheckpointError(f"{source.description}: marker {name} is no JSON: {error}") from error
    if not isinstance(marker, dict) or "format" not in marker:
        raise CheckpointError(f"{source.description}: marker {name} names no format")
    return marker
