"""Read a checkpoint back and check it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import FoundryError, is_out_of_memory
from ..progress import OnProgress, numbered
from ..sources import TensorSource, open_source, open_tensors, without_prefix
from ..sources.qwen_edit import marked_architectures
from ..sources.stored_layers import MARKER, StoredLayer, announced_markers, read_layout
from .checked_file import CheckedFile
from .layer_record import read_records
from .provenance import read_provenance
from .soundness import needs_newer_comfyui, not_understood, soundness_problems
from .source_digests import SourceProof
from .verify_layer import LayerContent, RecordedLayers, check_layer, tensors_differ


@dataclass(frozen=True)
class VerifyResult:
    """The problems found, each naming its layer, and the number of layers checked.

    ``notes`` is what is no problem of the file, such as a ComfyUI that it needs.
    """

    problems: tuple[str, ...]
    layers: int
    quantized: int
    compared_with_source: bool
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data with ``ok``, ``problems`` and what was checked."""
        return {
            "ok": self.ok,
            "problems": list(self.problems),
            "layers": self.layers,
            "quantized": self.quantized,
            "compared_with_source": self.compared_with_source,
            "notes": list(self.notes),
        }


def verify_checkpoint(
    path: str | Path,
    source: str | Path | None = None,
    on_progress: OnProgress | None = None,
    *,
    complete_from: str | Path | None = None,
    layout: str = "",
) -> VerifyResult:
    """Verify a checkpoint file, and compare it with the source model if that is given.

    Checks that every marker has its tensors in the right shapes and dtypes, that scales are
    finite and positive, that no quantized weight lacks a marker, that weights decode to finite
    values, and that ComfyUI loads the file as the whole model that it is (see ``soundness``). With
    a source, also checks that decoded weights match it within the format's error bound (and with
    the recorded error), and that unquantized tensors are bit-equal. ``complete_from`` is the file
    with the tensors that the source lacks, ``layout`` that of its NVFP4 weights without markers
    (see `open_source`).

    Raises:
        SourceError: a file cannot be read at all.
    """
    with CheckedFile(open_tensors(path)) as opened:
        checkpoint = without_prefix(opened)
        if source is None:
            return _verify(opened, checkpoint, None, on_progress)
        meant_for = marked_architectures(checkpoint)
        with open_source(source, complete_from, meant_for=meant_for, layout=layout) as original:
            return _verify(opened, checkpoint, original, on_progress)


def _verify(
    opened: CheckedFile,
    checkpoint: TensorSource,
    original: TensorSource | None,
    on_progress: OnProgress | None,
) -> VerifyResult:
    """Verify an open checkpoint, whose names have their prefix in ``opened``."""
    problems, notes = opened.header()
    try:
        layers = read_layout(checkpoint)
        problems += _check_announcement(checkpoint, layers)
    except FoundryError as error:
        return VerifyResult((str(error), *problems), 0, 0, original is not None, tuple(notes))
    if original is not None:
        problems += _check_names(layers, original)
        problems += _check_rest(checkpoint.rest, original.rest)
    provenance = read_provenance(checkpoint)
    recorded = RecordedLayers(
        {name: record.weight_error for name, record in read_records(provenance).items()},
        provenance.get("corrected_biases", {}),
    )
    proof = SourceProof.of(checkpoint, original)
    total, done = checkpoint.nbytes, 0
    contents = _read_ahead(opened, checkpoint, layers, original, proof)
    for number, (layer, content) in enumerate(zip(layers.values(), contents, strict=True), 1):
        try:
            problems += check_layer(content.result(), original, recorded)
        except (FoundryError, RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            problems.append(f"{layer.name}: the layer cannot be decoded: {error}")
        done += layer.nbytes
        if on_progress:
            on_progress(done, total, numbered("layer", number, len(layers), layer.name))
    for name in opened.unread():
        opened.load(name)
    problems = [*proof.problems(), *opened.problems(), *problems]
    problems += soundness_problems(opened, checkpoint, layers)
    if not problems:
        problems += not_understood(checkpoint)
    return VerifyResult(
        problems=tuple(problems),
        layers=len(layers),
        quantized=sum(layer.marker is not None for layer in layers.values()),
        compared_with_source=original is not None,
        notes=(*notes, *proof.notes(), *needs_newer_comfyui(layers)),
    )


def _read_ahead(
    opened: CheckedFile,
    checkpoint: TensorSource,
    layers: Mapping[str, StoredLayer],
    original: TensorSource | None,
    proof: SourceProof,
) -> Iterator[Future[LayerContent]]:
    """Yield the layers one by one, while another thread reads the next one."""
    with ThreadPoolExecutor(1, "read") as reader:
        upcoming: Future[LayerContent] | None = None
        for layer in layers.values():
            following = reader.submit(_read, opened, checkpoint, layer, original, proof)
            if upcoming is not None:
                yield upcoming
            upcoming = following
        if upcoming is not None:
            yield upcoming


def _read(
    opened: CheckedFile,
    checkpoint: TensorSource,
    layer: StoredLayer,
    original: TensorSource | None,
    proof: SourceProof,
) -> LayerContent:
    """Read a layer, and compare its tensors with the digests of the file and of the source."""
    stored = {suffix: checkpoint.load(info.name) for suffix, info in layer.tensors.items()}
    names = [info.name for info in layer.tensors.values()]
    source: dict[str, torch.Tensor] = {}
    if original is not None:
        found = [name for name in names if name in original.tensors]
        if f"{layer.name}.weight" in original.tensors:
            found = list(dict.fromkeys([f"{layer.name}.weight", *found]))
        source = {name: original.load(name) for name in found}
        proof.compare(source, layer.format)
    whole = all(opened.is_proven(checkpoint.prefix + name) for name in names)
    return LayerContent(layer, stored, source, decoded_before=whole)


def _check_announcement(checkpoint: TensorSource, layers: dict[str, StoredLayer]) -> Iterator[str]:
    """Compare the markers with the header's ``_quantization_metadata``, if both exist.

    A file may have no marker tensors at all, but if some layers have them, all must.
    """
    announced = announced_markers(checkpoint)
    has_markers = any(MARKER in layer.tensors for layer in layers.values())
    for name, marker in announced.items():
        layer = layers.get(name)
        if layer is None:
            yield f"{name}: the header announces this layer, but it has no weight"
        elif layer.marker != marker:
            yield f"{name}: the marker is {layer.marker}, but the header says {marker}"
        elif has_markers and MARKER not in layer.tensors:
            yield f"{name}: the marker {name}.{MARKER} is missing, but other layers have theirs"
    for name, layer in layers.items():
        if announced and layer.marker is not None and name not in announced:
            yield f"{name}: the layer has a marker, but the header does not announce it"


def _check_names(layers: dict[str, StoredLayer], original: TensorSource) -> Iterator[str]:
    """Check that all tensors of the source are there, and no others except our own."""
    stored = {
        info.name
        for layer in layers.values()
        for suffix, info in layer.tensors.items()
        if suffix in ("", "weight", "bias") or layer.marker is None
    }
    for name in original.tensors:
        if name not in stored:
            yield f"{name}: the checkpoint does not have this tensor of the source"
    for name in sorted(stored - set(original.tensors)):
        yield f"{name}: the source does not have this tensor of the checkpoint"


def _check_rest(rest: TensorSource | None, original: TensorSource | None) -> Iterator[str]:
    """Check that tensors beside the model, if they were copied, are complete and bit-equal."""
    if rest is None:
        return
    wanted = original.tensors if original else {}
    for name in sorted(set(rest.tensors) ^ set(wanted)):
        yield f"{name}: only one of source and checkpoint has this tensor beside the model"
    if original is not None:
        for name in set(rest.tensors) & set(wanted):
            yield from tensors_differ(rest.load(name), name, original.load(name))
