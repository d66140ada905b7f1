"""The pipeline: a source and a plan become a checkpoint, one layer in memory at a time."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import torch

from .calibration.input_scale import ScaleDecision, decide_scales, parse_policy
from .calibration.statistics import CalibrationStatistics
from .checkpoint.layout import PROVENANCE, QUANTIZATION_METADATA
from .checkpoint.writer import CheckpointWriter
from .encode import BIAS, INPUT_SCALE, MARKER, encode_layer, input_scale_of, stored_name
from .errors import CheckpointError, FormatError
from .formats import get_format
from .formats.base import TensorSpec
from .formats.plain import cast_plain
from .observed_input import ObservedInputs
from .planning.inventory import Layer, take_inventory
from .planning.plan import Plan, PlannedLayer, marker_bytes
from .report import ConversionReport, LayerReport, shorten
from .rounding import NEED_MOMENTS, ROUNDINGS
from .sources.base import TensorInfo, TensorSource
from .version import VERSION

#: Called after each layer with source bytes done, source bytes in all, and the layer's name. May
#: raise to stop the conversion; nothing is left behind then.
OnProgress = Callable[[int, int, str], None]

# Measured errors are recorded with this many digits after the first; none is longer as text.
_ERROR_DIGITS = 4
_LONGEST_ERROR = 1.2345e-300


@dataclass(frozen=True)
class QuantizedModel:
    """A checkpoint in memory: tensors by name, header metadata, report."""

    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]
    report: ConversionReport


class _Sink(Protocol):
    def write(self, name: str, tensor: torch.Tensor) -> None: ...


@dataclass
class _MemorySink:
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        # clone: a source may hand out tensors it owns, a checkpoint must not change with them
        self.tensors[name] = tensor.detach().cpu().clone()


@dataclass(frozen=True)
class _Job:
    """Everything that is decided before the first weight is read."""

    source: TensorSource
    plan: Plan
    layers: tuple[tuple[Layer, PlannedLayer], ...]
    decisions: Mapping[str, ScaleDecision]
    statistics: CalibrationStatistics | None
    device: torch.device
    started: float

    def specs(self) -> dict[str, TensorSpec]:
        """Announce every tensor of the checkpoint, in the source's order."""
        specs: dict[str, TensorSpec] = {}
        layers = {planned.name: (layer, planned) for layer, planned in self.layers}
        for layer, planned in (layers[planned.name] for planned in self.plan.layers):
            fmt = get_format(planned.format)
            for suffix, spec in fmt.tensor_specs(layer.shape, layer.tensor.dtype).items():
                specs[stored_name(layer, suffix)] = spec
            if fmt.marker is not None:
                size = len(marker_bytes(fmt))
                specs[stored_name(layer, MARKER)] = TensorSpec((size,), torch.uint8)
            if input_scale_of(fmt, self.decisions.get(layer.name)) is not None:
                specs[stored_name(layer, INPUT_SCALE)] = TensorSpec((), torch.float32)
            for info in layer.companions:
                specs[info.name] = TensorSpec(info.shape, info.dtype)
        return specs


def convert(
    source: TensorSource,
    plan: Plan,
    target: Path,
    *,
    statistics: CalibrationStatistics | None = None,
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    measure_outputs: bool = True,
    on_progress: OnProgress | None = None,
) -> ConversionReport:
    """Write a quantized checkpoint file.

    Peak memory is a few layers whatever the model's size. The target appears complete or not at
    all.

    Args:
        source: the model, unprefixed names.
        plan: made from this source.
        target: the file to write.
        statistics: calibration of this model, for static input scales and output errors.
        overwrite: replace an existing target.
        device: where weights are encoded.
        measure_outputs: measure output errors on the statistics' sampled rows.

    Raises:
        FoundryError: of the stage that failed, before any work where that can be known.
    """
    _require_other_file(source.paths, target)
    job = _prepare(source, plan, statistics, device)
    slack = len(json.dumps(json.dumps(_longest_results(plan))))  # twice: it is JSON in JSON
    with CheckpointWriter(
        target, job.specs(), _metadata(job, ()), header_slack=slack, overwrite=overwrite
    ) as writer:
        layers = _in_order(job, _encode_all(job, writer, measure_outputs, on_progress))
        writer.commit(_metadata(job, layers))
    return _report(job, layers, target.name)


def quantize_to_memory(
    source: TensorSource,
    plan: Plan,
    *,
    statistics: CalibrationStatistics | None = None,
    device: torch.device | str = "cpu",
    measure_outputs: bool = True,
    on_progress: OnProgress | None = None,
) -> QuantizedModel:
    """Quantize into memory, for use in the same graph; arguments as for `convert`."""
    job = _prepare(source, plan, statistics, device)
    sink = _MemorySink()
    layers = _in_order(job, _encode_all(job, sink, measure_outputs, on_progress))
    tensors = {name: sink.tensors[name] for name in job.specs()}
    return QuantizedModel(tensors, _metadata(job, layers), _report(job, layers, ""))


def save_model(
    model: QuantizedModel,
    target: Path,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> None:
    """Write a model quantized in memory; atomic like `convert`."""
    _require_other_file((Path(model.report.source),), target)
    specs = {n: TensorSpec(tuple(t.shape), t.dtype) for n, t in model.tensors.items()}
    total, done = sum(s.nbytes for s in specs.values()), 0
    with CheckpointWriter(target, specs, model.metadata, overwrite=overwrite) as writer:
        for name, tensor in model.tensors.items():
            writer.write(name, tensor)
            done += tensor.nbytes
            if on_progress:
                on_progress(done, total, name)
        writer.commit()


def _require_other_file(sources: tuple[Path, ...], target: Path) -> None:
    """Refuse to replace a file of the source, which overwriting would allow."""
    if target.exists() and any(path.exists() and target.samefile(path) for path in sources):
        raise CheckpointError(f"{target} is the source itself; choose another name")


def _prepare(
    source: TensorSource,
    plan: Plan,
    statistics: CalibrationStatistics | None,
    device: torch.device | str,
) -> _Job:
    inventory = take_inventory(source)
    plan.require_layers(inventory, source.description)
    layers = inventory.layers
    policy = parse_policy(plan.recipe.input_scale, plan.recipe.headroom)
    if statistics is not None:
        statistics.require_model(source.fingerprint(), "the calibration statistics")
        for layer in statistics.inputs.values():  # now, not after an hour
            for part in layer.moments.parts if layer.moments else ():
                part.require_readable()
    scaled = [
        planned.name
        for planned in plan.quantized()
        if get_format(planned.format).activation_divisor is not None
    ]
    return _Job(
        source=source,
        plan=plan,
        layers=tuple((layers[p.name], p) for p in _by_input(plan.layers, statistics)),
        decisions=decide_scales(policy, statistics, scaled),
        statistics=statistics,
        device=torch.device(device),
        started=time.monotonic(),
    )


def _in_order(job: _Job, reports: Iterator[LayerReport]) -> tuple[LayerReport, ...]:
    """Return the reports in the plan's order, whatever order they come in."""
    by_name = {report.name: report for report in reports}
    return tuple(by_name[planned.name] for planned in job.plan.layers)


def _by_input(
    planned: Sequence[PlannedLayer], statistics: CalibrationStatistics | None
) -> list[PlannedLayer]:
    """Put layers of one input behind each other, so that its Hessian is worked out once."""
    known = statistics.layers if statistics is not None else {}
    first: dict[str, int] = {}
    keys = []
    for index, layer in enumerate(planned):
        observed = known.get(layer.name)
        keys.append(first.setdefault(observed.input_id, index) if observed else index)
    return [layer for _, layer in sorted(zip(keys, planned, strict=True), key=lambda k: k[0])]


def _encode_all(
    job: _Job, sink: _Sink, measure_outputs: bool, on_progress: OnProgress | None
) -> Iterator[LayerReport]:
    """Encode layer after layer, reading one ahead and writing one behind on other threads."""
    recipe = job.plan.recipe
    inputs = ObservedInputs(job.statistics)
    total, done = job.source.nbytes, 0
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        upcoming = reader.submit(_load, job, 0)
        pending: Future[None] | None = None
        try:
            for index, (layer, planned) in enumerate(job.layers):
                loaded = upcoming.result()
                if index + 1 < len(job.layers):
                    upcoming = reader.submit(_load, job, index + 1)
                tensors, report = encode_layer(
                    layer,
                    planned,
                    loaded.pop(layer.tensor.name).to(job.device),
                    recipe.rounding,
                    job.decisions.get(layer.name),
                    inputs.of(layer.name),
                    loaded.get(f"{layer.name}.{BIAS}"),
                    measure_outputs=measure_outputs,
                    correct_bias=recipe.bias_correction,
                )
                if pending is not None:
                    pending.result()
                pending = writer.submit(_write, sink, {**loaded, **tensors})
                done += layer.nbytes
                if on_progress:
                    on_progress(done, total, layer.name)
                yield report
            if pending is not None:
                pending.result()
        finally:
            upcoming.cancel()


def _load(job: _Job, index: int) -> dict[str, torch.Tensor]:
    layer, _ = job.layers[index]
    companions = {info.name: _load_plain(job.source, info) for info in layer.companions}
    return {layer.tensor.name: job.source.load(layer.tensor.name), **companions}


def _load_plain(source: TensorSource, info: TensorInfo) -> torch.Tensor:
    """Load a tensor that is stored as it is; merged ones come in a wider dtype."""
    try:
        return cast_plain(source.load(info.name), info.dtype)
    except FormatError as error:
        raise FormatError(f"{info.name}: {error}") from error


def _write(sink: _Sink, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        sink.write(name, tensor)


def _metadata(job: _Job, reports: tuple[LayerReport, ...]) -> dict[str, str]:
    """Return the header's string map: the source's own, ComfyUI's, and where this came from."""
    markers = {p.name: dict(get_format(p.format).marker or {}) for p in job.plan.quantized()}
    quantization = {"format_version": "1.0", "layers": markers}
    return {
        **job.source.metadata,
        QUANTIZATION_METADATA: json.dumps(quantization),
        PROVENANCE: json.dumps(_provenance(job, reports)),
    }


def _provenance(job: _Job, reports: tuple[LayerReport, ...]) -> dict[str, Any]:
    return {
        "tool": f"nvfp4-foundry {VERSION}",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": Path(job.source.description).name,
        "source_digest": job.source.fingerprint().digest,
        "loras": [asdict(lora) for lora in job.source.loras],
        "architecture": str(job.plan.architecture),
        "recipe": job.plan.recipe.model_dump(mode="json", exclude_defaults=True),
        "calibration": _calibration_summary(job.statistics),
        "roundings": dict(Counter(r.rounding for r in reports if r.rounding)),
        "corrected_biases": {r.name: r.bias_digest for r in reports if r.bias_digest},
        "errors": {
            r.name: float(f"{r.weight_error:.{_ERROR_DIGITS}e}")
            for r in reports
            if r.weight_error is not None
        },
    }


def _longest_results(plan: Plan) -> list[Any]:
    """Return something as long as what `_provenance` adds once all layers are encoded."""
    names = [planned.name for planned in plan.quantized()]
    digests = dict.fromkeys(names, "0" * 8)
    return [dict.fromkeys(names, _LONGEST_ERROR), digests, dict.fromkeys(ROUNDINGS, len(names))]


def _calibration_summary(statistics: CalibrationStatistics | None) -> dict[str, Any] | None:
    if statistics is None:
        return None
    return {
        "runs": [run.id for run in statistics.runs],
        "prompts": sum(len(run.prompts) for run in statistics.runs),
        "model_calls": statistics.model_calls,
        "layers": len(statistics.layers),
    }


def _report(job: _Job, layers: tuple[LayerReport, ...], target: str) -> ConversionReport:
    warnings = [*job.source.notes, *job.plan.warnings]
    calibration = "none"
    if job.statistics is not None:
        drift = job.statistics.fingerprint.drift(job.source.fingerprint())
        if drift:
            warnings.append(
                f"the calibration was made on other weights, such as without a LoRA that is "
                f"applied now ({drift}). It is nearly right; for the best result calibrate the "
                "merged model, under a new name"
            )
        coverage = job.statistics.coverage(job.decisions)
        calibration = (
            f"{len(job.statistics.runs)} runs, {job.statistics.model_calls} model calls, "
            f"{len(coverage.covered)} of {len(job.decisions)} layers covered"
        )
        if coverage.uncovered:
            warnings.append(f"never observed: {shorten(coverage.uncovered)}")
        if coverage.partial:
            warnings.append(f"observed in part: {shorten(coverage.partial)}")
    if job.plan.recipe.rounding in NEED_MOMENTS and not any(
        r.rounding in NEED_MOMENTS for r in layers
    ):
        warnings.append(
            f"no layer got {job.plan.recipe.rounding}: it needs a calibration with Hessians "
            "(Calibrate's 'hessians'), and to prove itself on held-out inputs"
        )
    clipped = [r.name for r in layers if r.runtime_scale == "1.0"]
    if clipped:
        warnings.append(
            f"{len(clipped)} float8 layers have no static input_scale: where float8 is native, "
            "ComfyUI clips their activations at 448. Calibrate to avoid that."
        )
    return ConversionReport(
        source=job.source.description,
        loras=job.source.loras,
        target=target,
        recipe=job.plan.recipe.name,
        architecture=str(job.plan.architecture),
        rounding=job.plan.recipe.rounding,
        layers=layers,
        warnings=tuple(warnings),
        calibration=calibration,
        seconds=time.monotonic() - job.started,
    )
