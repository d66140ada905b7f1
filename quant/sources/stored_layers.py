"""The layout of a stored checkpoint: its layers with their tensors and markers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import CheckpointError, SourceError
from ..files.json_file import LARGEST_SMALL, parse_json
from ..formats import FORMATS, ExpertBank, WeightFormat, for_shape, format_of_marker
from ..formats.expert_bank import EXPERTS
from .base import TensorInfo, TensorSource, dtype_name

#: Suffixes of tensors that ComfyUI reads besides the tensors of a format.
MARKER, INPUT_SCALE, BIAS = "comfy_quant", "input_scale", "bias"
QUANTIZATION_METADATA = "_quantization_metadata"

#: Suffixes of the tensors that belong to a layer's weight.
SUFFIXES = frozenset(
    {
        *(name for fmt in FORMATS.values() for name in fmt.tensor_specs((256, 256), torch.float32)),
        *(BIAS, INPUT_SCALE, MARKER),
        *("scale_weight", "scale_input"),  # in older files without markers
        # of files that ComfyUI does not load, or not all of its versions
        *("scale_weight_tensor", "weight_scalar", "weight_scale_inv", "fp8_scale"),
        "pre_quant_scale",
        *("weight_correction", "weight_zero", "weight_zeros"),
    }
)

_SHORT_DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a checkpoint: its tensors by suffix, and its marker if it has one.

    For a parameter such as ``blocks.0.modulation``, the only key of ``tensors`` is ``""``.
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
        """The format that the marker names; None without a marker or for an unknown format."""
        if self.marker is None:
            return None
        shapes = {s: info.shape for s, info in self.tensors.items()}
        if EXPERTS not in self.marker:
            return format_of_marker(self.marker, shapes)
        each = format_of_marker(self.marker, {s: shape[1:] for s, shape in shapes.items()})
        return each and for_shape(each, self.weight.shape)

    @property
    def format_name(self) -> str:
        """The name of the format: ours, else the one in the marker or file, else the dtype."""
        if self.marker is not None:
            return self.format.name if self.format else str(self.marker.get("format", "unknown"))
        if self.weight.stored:
            return self.weight.stored.label
        return short_dtype(self.weight.dtype)

    def shape(self) -> tuple[int, ...]:
        """Return the unpacked shape of the weight. The bias gives the rows, if there is one.

        Padded columns cannot be recognised, so they count.
        """
        stored, fmt = self.weight.shape, self.format
        bias = self.tensors.get(BIAS)
        if isinstance(fmt, ExpertBank):
            return fmt.shape_of(stored, bias.shape if bias else ())
        if fmt is None or len(stored) != 2:
            return stored
        return fmt.logical_shape(stored, bias.shape[0] if bias and bias.shape else None)


def short_dtype(dtype: torch.dtype) -> str:
    """Return a short name of a dtype, such as ``bf16`` or ``float8_e4m3fn``."""
    return _SHORT_DTYPES.get(dtype, dtype_name(dtype))


def read_layout(source: TensorSource, *, lenient: bool = False) -> dict[str, StoredLayer]:
    """Group a checkpoint's tensors into layers, and parse its markers.

    Args:
        source: the checkpoint.
        lenient: accept markers that ComfyUI refuses although their meaning is known: markers of NUL
            bytes, whose layers are not quantized, and markers without a format.

    Raises:
        CheckpointError: a marker is not a JSON object.
    """
    grouped: dict[str, dict[str, TensorInfo]] = {}
    for name, info in source.tensors.items():
        base, _, leaf = name.rpartition(".")
        is_part = leaf in SUFFIXES and bool(base) and f"{base}.weight" in source.tensors
        key, suffix = (base, leaf) if is_part else (name, "")
        grouped.setdefault(key, {})[suffix] = info
    announced = announced_markers(source, lenient=lenient)
    layers: dict[str, StoredLayer] = {}
    for name, tensors in grouped.items():
        marker = announced.get(name)
        if MARKER in tensors:
            marker = _read_marker(source, tensors[MARKER].name, lenient)
        layers[name] = StoredLayer(name, tensors, marker)
    return layers


def layer_tensors(source: TensorSource, layer: str) -> dict[str, TensorInfo]:
    """Return the tensors of one layer by suffix."""
    found = {suffix: source.tensors.get(f"{layer}.{suffix}") for suffix in ("weight", *SUFFIXES)}
    return {suffix: info for suffix, info in found.items() if info is not None}


def announced_markers(
    source: TensorSource, *, lenient: bool = False
) -> dict[str, Mapping[str, Any]]:
    """Return the markers in the header's ``_quantization_metadata``.

    With ``lenient``, they may lack a format.

    Raises:
        CheckpointError: the metadata is not the JSON that ComfyUI expects.
    """
    text = source.metadata.get(QUANTIZATION_METADATA)
    if text is None:
        return {}
    try:
        layers = dict(parse_json(text)["layers"])
        for marker in layers.values():
            if not isinstance(marker, dict) or not (lenient or "format" in marker):
                raise ValueError("a layer has no format")
        # A full checkpoint uses the names in the file, and also lists its text encoder's layers.
        inside = {k: v for k, v in layers.items() if k.startswith(source.prefix)}
        return {k.removeprefix(source.prefix): v for k, v in (inside or layers).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source.description} is damaged: its {QUANTIZATION_METADATA} is not valid ({error})"
        ) from error


def joined_metadata(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of two shards: that of the first, with the markers of both.

    If the markers in one of them are damaged, they are returned as they are, so that
    `announced_markers` refuses them.
    """
    joined = {**second, **first}
    layers: dict[str, Any] = {}
    for metadata in (second, first):
        text = metadata.get(QUANTIZATION_METADATA)
        if text is None:
            continue
        try:
            layers |= parse_json(text)["layers"]
        except (KeyError, TypeError, ValueError):
            return {**joined, QUANTIZATION_METADATA: text}
        joined[QUANTIZATION_METADATA] = json.dumps({"format_version": "1.0", "layers": layers})
    return joined


def read_marker(
    source: TensorSource, layer: str, *, lenient: bool = False
) -> Mapping[str, Any] | None:
    """Return the marker of a layer; None if it has none, or with ``lenient`` one of NUL bytes.

    Raises:
        CheckpointError: it is not a JSON object.
    """
    name = f"{layer}.{MARKER}"
    return _read_marker(source, name, lenient) if name in source.tensors else None


def _read_marker(source: TensorSource, name: str, lenient: bool) -> Mapping[str, Any] | None:
    """Return a marker; with ``lenient``, None for one of NUL bytes."""
    try:
        if source.info(name).nbytes > LARGEST_SMALL:
            raise ValueError(f"it has {source.info(name).nbytes} bytes")
        content = bytes(source.load(name).reshape(-1).view(torch.uint8).tolist())
        if lenient and content and not any(content):
            return None
        marker = parse_json(content, largest=LARGEST_SMALL)
    except (ValueError, SourceError) as error:
        raise CheckpointError(
            f"{source.description} is damaged: marker {name} is not JSON: {error}"
        ) from error
    if not isinstance(marker, dict) or not (lenient or "format" in marker):
        raise CheckpointError(f"{source.description} is damaged: marker {name} names no format")
    return marker
