"""What a model file holds, quantized or not."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..planning.architectures import detect_architecture
from ..planning.inventory import inventory_of
from ..sources import PrefixedSource, TensorInfo, TensorSource, find_prefix, open_tensors
from ..sources.stored_layers import StoredLayer, read_layout
from .provenance import read_provenance


@dataclass(frozen=True)
class LayerSummary:
    """One layer as stored. ``bytes`` counts weight, bias, scales and marker."""

    name: str
    kind: str
    shape: tuple[int, ...]
    format: str
    bytes: int
    input_scale: float | None = None


@dataclass(frozen=True)
class CheckpointSummary:
    """A file's layers and what is known of its making."""

    path: str
    architecture: str
    layers: tuple[LayerSummary, ...]
    notes: tuple[str, ...]
    metadata: dict[str, str]
    provenance: dict[str, Any]

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors (the file adds its header)."""
        return sum(layer.bytes for layer in self.layers)

    def counts(self) -> dict[str, int]:
        """Return the number of Linears per format, most first."""
        return dict(Counter(la.format for la in self.layers if la.kind == "linear").most_common())

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data with ``layers`` and ``total_bytes``."""
        return {
            "path": self.path,
            "architecture": self.architecture,
            "layers": [asdict(layer) for layer in self.layers],
            "total_bytes": self.total_bytes,
            "formats": self.counts(),
            "notes": list(self.notes),
            "provenance": self.provenance,
        }


def inspect_checkpoint(path: str | Path) -> CheckpointSummary:
    """Read a file's header, markers and input scales; no weights are loaded.

    Raises:
        SourceError, CheckpointError: the file is unreadable or its markers are.
    """
    with open_tensors(path) as opened:
        prefix = find_prefix(opened.tensors)
        return summarise(PrefixedSource(opened, prefix) if prefix else opened)


def summarise(source: TensorSource) -> CheckpointSummary:
    """Summarise an open source; see `inspect_checkpoint`."""
    stored = read_layout(source)
    # The inventory decides what a layer is from logical shapes, so quantized layers are shown to
    # it as the floating-point weights they stand for.
    logical = inventory_of(
        TensorInfo(
            f"{la.name}.weight" if "weight" in la.tensors else la.name, la.shape(), _dtype(la)
        )
        for la in stored.values()
    )
    layers = tuple(
        LayerSummary(
            name=layer.name,
            kind=logical.layers[layer.name].kind,
            shape=layer.shape(),
            format=layer.format_name,
            bytes=layer.nbytes,
            input_scale=_input_scale(source, layer),
        )
        for layer in stored.values()
    )
    return CheckpointSummary(
        path=source.description,
        architecture=str(detect_architecture(logical)),
        layers=layers,
        notes=source.notes,
        metadata=dict(source.metadata),
        provenance=read_provenance(source),
    )


def _dtype(layer: StoredLayer) -> torch.dtype:
    return torch.bfloat16 if layer.marker is not None else layer.weight.dtype


def _input_scale(source: TensorSource, layer: StoredLayer) -> float | None:
    info = layer.tensors.get("input_scale")
    return float(source.load(info.name).float().reshape(-1)[0]) if info else None
