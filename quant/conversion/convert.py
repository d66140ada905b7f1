"""The pipeline: turn a source and a plan into a checkpoint, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch

from ..calibration.statistics import CalibrationStatistics
from ..checkpoint.shared_writer import SharedWriter
from ..checkpoint.source_digests import source_digest
from ..checkpoint.writer import CheckpointWriter
from ..errors import CheckpointError, FormatError
from ..files.resumable import remove_resumable
from ..formats import for_shape, get_format
from ..formats.base import TensorSpec
from ..formats.plain import cast_plain
from ..hardware.transfers import Transfers
from ..planning.plan import Plan
from ..progress import OnProgress, numbered
from ..ranks.alone import ALONE, Ranks
from ..sources.base import TensorInfo, TensorSource
from ..sources.stored_layers import BIAS
from ..text import format_bytes
from .compile_report import conversion_report
from .header_metadata import header_metadata, reserved_length
from .job import ConversionJob, prepare_job
from .journal import Journal, journal_key
from .layer import encode_layer
from .observed_input import ObservedInputs
from .report import ConversionReport, LayerReport
from .share import gather_reports, share_of, share_of_rest


@dataclass(frozen=True)
class QuantizedModel:
    """A checkpoint in memory: tensors by name, header metadata and report."""

    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]
    report: ConversionReport


@dataclass(frozen=True)
class _Loaded:
    """A layer as it was read.

    ``weight`` is the tensors of its format by suffix if the source has them. ``companions`` and
    ``digests``, of all that was read, are by name.
    """

    weight: torch.Tensor | Mapping[str, torch.Tensor]
    companions: dict[str, torch.Tensor]
    digests: dict[str, str]


class _Sink(Protocol):
    def write(self, name: str, tensor: torch.Tensor) -> None: ...


@dataclass
class _MemorySink:
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        # A source may return tensors that it owns; the checkpoint must not change with them.
        self.tensors[name] = tensor.detach().cpu().clone()


class _NoSink:
    """Sink for a conversion of which only the report is wanted."""

    def write(self, name: str, tensor: torch.Tensor) -> None:
        pass


@dataclass(frozen=True)
class _WithPrefix:
    """Sink that writes the model's tensors under their names in the file."""

    sink: _Sink
    prefix: str

    def write(self, name: str, tensor: torch.Tensor) -> None:
        self.sink.write(self.prefix + name, tensor)


def convert(
    source: TensorSource,
    plan: Plan,
    target: Path,
    *,
    statistics: CalibrationStatistics | None = None,
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    measure_outputs: bool = True,
    whole_file: bool = False,
    ranks: Ranks = ALONE,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> ConversionReport:
    """Write a quantized checkpoint file.

    Peak memory is a few layers, whatever the model's size. The target appears complete or not at
    all.

    Args:
        source: the model, with names without prefix.
        plan: the plan made from this source.
        target: the file to write.
        statistics: calibration of this model, for static input scales and output errors.
        overwrite: replace an existing target.
        device: the device that encodes weights.
        measure_outputs: measure output errors on the sampled rows of the calibration.
        whole_file: also copy the tensors beside the model, and keep all names of the file, so that
            a full checkpoint stays a full checkpoint.
        ranks: the ranks that share the layers and write into the same file. All call this with
            the same arguments, and all get the whole report.
        resume: keep finished layers if the run is stopped, and go on from them; see `Journal`.
        on_progress: called after each layer.

    Raises:
        FoundryError: the error class of the stage that failed; before any work if possible. At the
            end, `SourceError` if a file of the source changed while it was read.
    """
    _require_other_file(source.paths, target)
    job = prepare_job(source, plan, statistics, device, whole_file=whole_file)
    on_progress = ranks.counted(on_progress)
    with SharedWriter(
        target, job.specs(), header_metadata(job, ()), ranks, header_slack=reserved_length(job),
        overwrite=overwrite,
    ) as writer, _journal(job, target, ranks, measure_outputs, keep=resume) as journal:  # fmt: skip
        sink = _WithPrefix(writer, job.prefix)
        restored = tuple(_restore(job, sink, journal, on_progress))
        finished, notes = _gather_finished(journal, restored, job, ranks)
        left = share_of(_without(job, finished), ranks)
        done = _bytes_of(job, restored)
        encoded = tuple(_encode_all(left, sink, measure_outputs, on_progress, journal, done))
        _copy_rest(job, share_of_rest(job, ranks), writer, on_progress)
        source.require_unchanged()
        writer.merge_parts()
        layers = _in_order(job, gather_reports((*restored, *encoded), ranks))
        writer.commit(header_metadata(job, layers))
    if ranks.is_first:
        remove_resumable(target)
    report = conversion_report(job, layers, target.name)
    return replace(report, notes=(*report.notes, *notes))


def quantize_to_memory(
    source: TensorSource,
    plan: Plan,
    *,
    statistics: CalibrationStatistics | None = None,
    device: torch.device | str = "cpu",
    measure_outputs: bool = True,
    on_progress: OnProgress | None = None,
) -> QuantizedModel:
    """Quantize a model into memory, for use in the same graph. For the arguments see `convert`."""
    job = prepare_job(source, plan, statistics, device)
    sink = _MemorySink()
    layers = _in_order(job, _encode_all(job, sink, measure_outputs, on_progress))
    source.require_unchanged()
    tensors = {name: sink.tensors[name] for name in job.specs()}
    return QuantizedModel(tensors, header_metadata(job, layers), conversion_report(job, layers, ""))


def report_conversion(
    source: TensorSource,
    plan: Plan,
    *,
    statistics: CalibrationStatistics | None = None,
    device: torch.device | str = "cpu",
    measure_outputs: bool = True,
    on_progress: OnProgress | None = None,
) -> ConversionReport:
    """Quantize a model layer by layer for the report alone. For the arguments see `convert`."""
    job = prepare_job(source, plan, statistics, device)
    layers = _in_order(job, _encode_all(job, _NoSink(), measure_outputs, on_progress))
    source.require_unchanged()
    return conversion_report(job, layers, "")


def save_model(
    model: QuantizedModel,
    target: Path,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> None:
    """Write a model that was quantized in memory, atomically like `convert`."""
    _require_other_file((Path(model.report.source),), target)
    specs = {n: TensorSpec(tuple(t.shape), t.dtype) for n, t in model.tensors.items()}
    total, done = sum(s.nbytes for s in specs.values()), 0
    with CheckpointWriter(target, specs, model.metadata, overwrite=overwrite) as writer:
        for number, (name, tensor) in enumerate(model.tensors.items(), 1):
            writer.write(name, tensor)
            done += tensor.nbytes
            if on_progress:
                on_progress(done, total, numbered("tensor", number, len(specs), name))
        writer.commit()


def _copy_rest(
    job: ConversionJob, names: Sequence[str], sink: _Sink, on_progress: OnProgress | None
) -> None:
    """Copy tensors beside the model, one at a time."""
    for number, name in enumerate(names, 1):
        assert job.rest is not None
        sink.write(name, job.rest.load(name))
        if on_progress:  # may raise to stop the conversion
            text = numbered("other tensor", number, len(names), name)
            on_progress(job.source.nbytes, job.source.nbytes, text)


def _require_other_file(sources: tuple[Path, ...], target: Path) -> None:
    """Refuse to replace a file of the source, even if overwriting is allowed."""
    if target.exists() and any(path.exists() and target.samefile(path) for path in sources):
        raise CheckpointError(f"{target} is the source itself; choose another name")


def _in_order(job: ConversionJob, reports: Iterable[LayerReport]) -> tuple[LayerReport, ...]:
    """Return the reports, which come in any order, in the plan's order."""
    by_name = {report.name: report for report in reports}
    return tuple(by_name[planned.name] for planned in job.plan.layers)


@contextmanager
def _journal(
    job: ConversionJob, target: Path, ranks: Ranks, measure_outputs: bool, *, keep: bool
) -> Iterator[Journal | None]:
    """Yield the journal, which is deleted once the checkpoint is complete; None: none is kept."""
    if not keep:
        yield None
        return
    journal = Journal(target, journal_key(job, measure_outputs=measure_outputs), ranks)
    try:
        yield journal
        journal.remove()
    finally:
        journal.close()


def _restore(
    job: ConversionJob, sink: _Sink, journal: Journal | None, on_progress: OnProgress | None
) -> Iterator[LayerReport]:
    """Write the layers that an earlier run finished, and yield their reports."""
    sizes, done = {layer.name: layer.nbytes for layer, _ in job.layers}, 0
    for report, tensors in journal.read() if journal is not None else ():
        for name, tensor in tensors.items():
            sink.write(name, tensor)
        done += sizes[report.name]
        if on_progress:
            on_progress(done, job.source.nbytes, f"finished before: {report.name}")
        yield report


def _gather_finished(
    journal: Journal | None, restored: Sequence[LayerReport], job: ConversionJob, ranks: Ranks
) -> tuple[set[str], list[str]]:
    """Return the layers that an earlier run finished, of all ranks, and notes on that run."""
    if journal is None:
        return set(), []
    mine = [[report.name for report in restored], journal.reused]
    parts = ranks.gather("finished layers", mine)
    gone = ranks.by_first("other layers", journal.remove_other_settings)
    finished = {name for names, _ in parts for name in names}
    if finished:
        size = format_bytes(sum(reused for _, reused in parts))
        which = f"{len(finished)} of {len(job.layers)} layers ({size})"
        return finished, [f"{which} are from an earlier run that was stopped"]
    if gone:
        size = format_bytes(gone)
        note = (
            f"the layers of an earlier run that was stopped ({size}) were not used and are gone: "
            "since then, the model, the calibration, the recipe or the version changed"
        )
        return finished, [note]
    return finished, []


def _bytes_of(job: ConversionJob, finished: Sequence[LayerReport]) -> int:
    names = {report.name for report in finished}
    return sum(layer.nbytes for layer, _ in job.layers if layer.name in names)


def _without(job: ConversionJob, finished: set[str]) -> ConversionJob:
    return replace(job, layers=tuple(e for e in job.layers if e[0].name not in finished))


def _encode_all(
    job: ConversionJob,
    sink: _Sink,
    measure_outputs: bool,
    on_progress: OnProgress | None,
    journal: Journal | None = None,
    done: int = 0,
) -> Iterator[LayerReport]:
    """Encode layer after layer. Other threads read the next layer and write the previous one.

    ``done``: the bytes of the source that were done before, for ``on_progress``.
    """
    if not job.layers:  # more ranks than layers
        return
    recipe = job.plan.recipe
    inputs = ObservedInputs(job.statistics)
    total = job.source.nbytes
    transfers = Transfers(job.device)
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        upcoming = reader.submit(_load, job, 0, transfers)
        pending: Future[None] | None = None
        try:
            for index, (layer, planned) in enumerate(job.layers):
                loaded = upcoming.result()
                weight = loaded.weight
                if isinstance(weight, torch.Tensor):
                    weight = transfers.arrived(weight)
                if index + 1 < len(job.layers):
                    upcoming = reader.submit(_load, job, index + 1, transfers)
                tensors, report = encode_layer(
                    layer,
                    planned,
                    weight,
                    recipe.rounding,
                    job.decisions.get(layer.name),
                    inputs.of(layer.name),
                    loaded.companions.get(f"{layer.name}.{BIAS}"),
                    measure_outputs=measure_outputs,
                    correct_bias=recipe.bias_correction,
                )
                if pending is not None:
                    pending.result()
                report = replace(report, source_digests=loaded.digests)
                results = transfers.computed({**loaded.companions, **tensors})
                pending = writer.submit(_write, sink, report, results, transfers, journal)
                done += layer.nbytes
                if on_progress:
                    text = numbered("layer", index + 1, len(job.layers), layer.name)
                    on_progress(done, total, text)
                yield report
            if pending is not None:
                pending.result()
        finally:
            upcoming.cancel()


def _load(job: ConversionJob, index: int, transfers: Transfers) -> _Loaded:
    layer, planned = job.layers[index]
    read = {info.name: job.source.load(info.name) for info in layer.companions}
    fmt = for_shape(get_format(planned.format), layer.shape)
    taken = job.source.stored_tensors(layer.tensor.name, fmt)
    weight = job.source.load(layer.tensor.name) if taken is None else taken
    return _Loaded(
        weight if isinstance(weight, Mapping) else transfers.upload(weight),
        {info.name: _as_stored(read[info.name], info) for info in layer.companions},
        {n: source_digest(value) for n, value in {layer.tensor.name: weight, **read}.items()},
    )


def _as_stored(tensor: torch.Tensor, info: TensorInfo) -> torch.Tensor:
    """Return an unquantized tensor in its stored dtype; merged ones are wider."""
    try:
        return cast_plain(tensor, info.dtype)
    except FormatError as error:
        raise FormatError(f"{info.name}: {error}") from error


def _write(
    sink: _Sink,
    report: LayerReport,
    tensors: Mapping[str, torch.Tensor],
    transfers: Transfers,
    journal: Journal | None,
) -> None:
    written: dict[str, torch.Tensor] = {}
    for name, tensor in transfers.download(tensors):
        sink.write(name, tensor)
        if journal is not None:
            written[name] = tensor.clone()  # its buffer may be used again
    if journal is not None:
        journal.append(report, written)
