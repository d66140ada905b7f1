"""Summarise the content of a model file, quantized or not."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import FoundryError
from ..formats import FORMATS
from ..planning.architectures import Architecture, detect_architecture
from ..planning.completeness import require_whole
from ..planning.inventory import Layer, take_inventory
from ..planning.loadable import needed_comfyui, version_notes
from ..sources import TensorInfo, TensorSource, open_source, open_to_look
from ..sources.stored_layers import short_dtype
from .digests import has_digests
from .layer_record import LayerRecord, OverallError, overall_error, read_records
from .provenance import read_provenance


@dataclass(frozen=True)
class LayerSummary:
    """One layer as stored. ``bytes`` counts weight, bias, scales and marker.

    ``record`` is what the header tells about the layer if this tool wrote the file.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    format: str
    bytes: int
    input_scale: float | None = None
    record: LayerRecord | None = None


@dataclass(frozen=True)
class CheckpointSummary:
    """The layers of a file, its metadata, and the record of how it was made.

    ``folder`` is the folder of ComfyUI's models that such a file belongs in. ``refusal`` is why the
    file cannot be quantized; empty if it can. ``needs_comfyui`` is the first ComfyUI that loads it,
    empty if every supported one does.
    """

    path: str
    architecture: str
    layers: tuple[LayerSummary, ...]
    notes: tuple[str, ...]
    metadata: dict[str, str]
    provenance: dict[str, Any]
    folder: str = "diffusion_models"
    refusal: str = ""
    needs_comfyui: str = ""

    @property
    def has_digests(self) -> bool:
        """Whether the header has digests, by which `verify_checkpoint` finds any changed bit."""
        return has_digests(self.metadata)

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors, without the file's header."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def bytes_before(self) -> int | None:
        """Bytes of all tensors of the source that the file was made from, if recorded."""
        return self.provenance.get("bytes_before")

    @property
    def dynamic_layers(self) -> tuple[str, ...]:
        """Linear layers that could have a static ``input_scale`` but have none."""
        return tuple(
            la.name
            for la in self.layers
            if la.kind == "linear"
            and la.input_scale is None
            and la.format in FORMATS
            and FORMATS[la.format].activation_divisor is not None
        )

    def counts(self) -> dict[str, int]:
        """Return the number of Linear layers per format, largest first."""
        return dict(Counter(la.format for la in self.layers if la.kind == "linear").most_common())

    def overall_error(self) -> OverallError | None:
        """Return the recorded error of all layers together, beside the plain max rule's."""
        return overall_error(la.record for la in self.layers if la.record)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data with ``layers`` and ``total_bytes``.

        The records are part of the layers, so the provenance is without them.
        """
        return {
            "path": self.path,
            "architecture": self.architecture,
            "layers": [asdict(layer) for layer in self.layers],
            "total_bytes": self.total_bytes,
            "formats": self.counts(),
            "notes": list(self.notes),
            "refusal": self.refusal,
            "needs_comfyui": self.needs_comfyui,
            "digests": self.has_digests,
            "provenance": {k: v for k, v in self.provenance.items() if k != "layers"},
        }


def inspect_checkpoint(path: str | Path, layout: str = "") -> CheckpointSummary:
    """Summarise a model file of any kind from its header, markers and input scales.

    Loads no weights. A file that cannot be quantized is shown as well, with the reason. ``layout``
    is that of NVFP4 weights without markers (see `open_source`).

    Raises:
        SourceError, CheckpointError: the file or its markers cannot be read.
    """
    with open_to_look(path, layout) as source:
        return replace(summarise(source), refusal=_why_refused(path, layout))


def _why_refused(path: str | Path, layout: str) -> str:
    """Return why a file cannot be quantized; empty if it can."""
    try:
        with open_source(path, layout=layout) as source:
            inventory = take_inventory(source)
            require_whole(inventory)
            architecture = detect_architecture(inventory)
    except FoundryError as error:
        return str(error)
    if architecture.problem:
        return f"this model is {architecture.title}: {architecture.problem}"
    return ""


def summarise(source: TensorSource) -> CheckpointSummary:
    """Summarise an open source; see `inspect_checkpoint`."""
    inventory = take_inventory(source)
    provenance = read_provenance(source)
    records = read_records(provenance)
    layers = tuple(
        LayerSummary(
            name=layer.name,
            kind=layer.kind,
            shape=layer.shape,
            format=stored_format(layer.tensor),
            bytes=layer.nbytes,
            input_scale=_input_scale(source, layer),
            record=records.get(layer.name),
        )
        for layer in inventory.layers.values()
    )
    architecture = detect_architecture(inventory)
    formats = [layer.format for layer in layers]
    return CheckpointSummary(
        path=source.description,
        architecture=str(architecture),
        layers=layers,
        notes=(*source.notes, *version_notes(formats, architecture)),
        needs_comfyui=needed_comfyui(formats, architecture),
        metadata=dict(source.metadata),
        provenance=provenance,
        folder=_folder(source, architecture),
    )


def _folder(source: TensorSource, architecture: Architecture) -> str:
    if source.rest is not None:
        return "checkpoints"
    return architecture.folder


def stored_format(info: TensorInfo) -> str:
    """Return the name of the format that a tensor is stored in, or its dtype if unquantized."""
    if info.stored:
        return info.stored.label
    return short_dtype(info.dtype)


def _input_scale(source: TensorSource, layer: Layer) -> float | None:
    stored = source.stored_weight(layer.tensor.name)
    divisor = stored.format.activation_divisor if stored and stored.format else None
    amax = stored.input_amax() if stored and divisor else None
    return amax / divisor if amax is not None and divisor else None
