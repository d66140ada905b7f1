"""Give a quantized checkpoint other static input scales without quantizing it again.

Only ``input_scale`` tensors are changed, added or removed. All other tensors are copied byte by
byte, and the header records the change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .. import VERSION
from ..calibration.input_scale import (
    InputScalePolicy,
    ScaleDecision,
    decide_scales,
    scaled_input_ratio,
)
from ..calibration.statistics import CalibrationStatistics
from ..errors import CalibrationError, CheckpointError
from ..formats.base import TensorSpec, is_full_precision
from ..formats.nvfp4 import PRE_QUANT_SCALE
from ..progress import OnProgress, numbered
from ..sources import PrefixedSource, TensorSource, find_prefix, open_tensors
from ..sources.stored_layers import INPUT_SCALE, StoredLayer, read_layout
from .provenance import PROVENANCE, created_now, read_provenance
from .recognise import require_same_model
from .writer import CheckpointWriter


@dataclass(frozen=True)
class RescaledLayer:
    """The input scale of one layer before and after; None means dynamic."""

    name: str
    format: str
    before: float | None
    after: float | None
    reason: str

    @property
    def change(self) -> float | None:
        """The new scale as a multiple of the old one; None if one of them is dynamic."""
        return self.after / self.before if self.before and self.after is not None else None


@dataclass(frozen=True)
class RescaleReport:
    """The changes to the input scales of a checkpoint.

    Attributes:
        source: the checkpoint that was read.
        target: the file that was written; empty for a dry run.
        layers: the layers that take an input scale, in the file's order.
        compared: number of tensors whose values match the model of the calibration.
        notes: warnings for the user.
    """

    source: str
    target: str
    layers: tuple[RescaledLayer, ...]
    compared: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-serialisable data."""
        return {
            **asdict(self),
            "layers": [{**asdict(la), "change": la.change} for la in self.layers],
        }


def rescale_checkpoint(
    path: str | Path,
    policy: InputScalePolicy,
    statistics: CalibrationStatistics | None = None,
    target: Path | None = None,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> RescaleReport:
    """Write a copy of a checkpoint with the static input scales of a policy and a calibration.

    One tensor is in memory at a time. The target appears complete or not at all, so with
    ``overwrite`` it may be the checkpoint itself. A layer that was not observed reliably gets no
    static scale, as in a conversion.

    Args:
        path: a checkpoint of this or another tool.
        policy: how the scales are chosen.
        statistics: calibration of the model that the checkpoint was made from.
        target: the file to write; None for a dry run.
        overwrite: replace an existing target.
        on_progress: called after each tensor.

    Raises:
        SourceError, CheckpointError: the checkpoint cannot be read, has no layer that takes a
            static scale, or the target cannot be written.
        CalibrationError: the calibration is from another model, or a file of scales is invalid.
    """
    _require_statistics(policy, statistics)
    with open_tensors(path) as file:
        target = _resolved(target, file.paths)
        prefix = find_prefix(file.tensors)
        model = PrefixedSource(file, prefix, strict=True) if prefix else file
        layers = read_layout(model)
        scaled = _scaled_layers(path, layers)
        compared = 0
        if statistics is not None:
            compared = require_same_model(statistics.fingerprint, model, layers)
        decisions = decide_scales(policy, statistics, scaled, layers)
        ratios = {name: _ratio(model, layer, statistics) for name, layer in scaled.items()}
        rescaled = tuple(
            _rescaled(model, la, _of_scaled_input(decisions[name], ratios[name], policy))
            for name, la in scaled.items()
        )
        report = RescaleReport(
            source=str(path),
            target=str(target or ""),
            layers=rescaled,
            compared=compared,
            notes=_notes(statistics, compared),
        )
        if target is not None:
            _write(file, model, report, _record(policy, statistics), target, overwrite, on_progress)
    if target is not None:
        _require_written(target, prefix, rescaled)
    return report


def _require_statistics(policy: InputScalePolicy, statistics: CalibrationStatistics | None) -> None:
    if statistics is None and policy.kind in ("amax", "percentile"):
        raise CalibrationError(
            f"the input scale policy {policy} needs a calibration; give one, or choose dynamic, "
            "fixed or a file of scales"
        )


def _scaled_layers(path: str | Path, layers: Mapping[str, StoredLayer]) -> dict[str, StoredLayer]:
    """Return the layers that take a static scale; refuse a checkpoint without any."""
    scaled = {name: layer for name, layer in layers.items() if takes_input_scale(layer)}
    if not scaled:
        raise CheckpointError(
            f"{path}: no layer takes an input_scale. Only layers that are marked as NVFP4 or "
            "float8 and multiplied in that format take one. Quantize the file first; that also "
            "converts NVFP4 files of other tools to the form that ComfyUI loads"
        )
    return scaled


def _resolved(target: Path | None, paths: tuple[Path, ...]) -> Path | None:
    """Return the target with links resolved; refuse to overwrite one of several shards."""
    if target is None or not target.exists():
        return target
    if len(paths) > 1 and any(target.samefile(path) for path in paths):
        raise CheckpointError(f"{target} is one of several shards; write the result to a new file")
    return target.resolve()


def takes_input_scale(layer: StoredLayer) -> bool:
    """Return whether ComfyUI quantizes the layer's inputs by a scale for the whole tensor."""
    fmt = layer.format
    if fmt is None or fmt.activation_divisor is None:
        return False
    return not is_full_precision(layer.marker)


def _rescaled(model: TensorSource, layer: StoredLayer, decision: ScaleDecision) -> RescaledLayer:
    info = layer.tensors.get(INPUT_SCALE)
    divisor = layer.format.activation_divisor if layer.format else None
    after = decision.scale_for(divisor) if divisor else None
    return RescaledLayer(
        name=layer.name,
        format=layer.format_name,
        before=float(model.load(info.name).float().reshape(-1)[0]) if info else None,
        after=None if after is None else float(torch.tensor(after, dtype=torch.float32)),
        reason=decision.reason,
    )


def _ratio(
    model: TensorSource, layer: StoredLayer, statistics: CalibrationStatistics | None
) -> float | None:
    """Return by how much the layer's factors change its largest input; None if that is unknown."""
    factors = layer.tensors.get(PRE_QUANT_SCALE)
    if factors is None:
        return 1.0
    observed = statistics.layers.get(layer.name) if statistics else None
    return scaled_input_ratio(model.load(factors.name), observed) if observed else None


def _of_scaled_input(
    decision: ScaleDecision, ratio: float | None, policy: InputScalePolicy
) -> ScaleDecision:
    """Return the decision for an input that is multiplied by factors per channel first.

    Without a calibration, only a fixed scale is known.
    """
    if ratio == 1.0 or not decision.is_static:
        return decision
    if ratio is None and policy.kind == "fixed":
        return decision
    if ratio is None:
        return ScaleDecision(
            "dynamic: without a calibration, the scale of an input times factors "
            "per channel (pre_quant_scale) is not known"
        )
    reason = f"{decision.reason}, for the input times {PRE_QUANT_SCALE}"
    amax = None if decision.amax is None else decision.amax * ratio
    scale = None if decision.input_scale is None else decision.input_scale * ratio
    return ScaleDecision(reason, amax, scale)


def _notes(statistics: CalibrationStatistics | None, compared: int) -> tuple[str, ...]:
    if statistics is None or compared:
        return ()
    return (
        "warning: the file has no values to recognise the model by; only the shapes match the "
        "calibration. Make sure that the calibration is from this model, and from this expert",
    )


def _record(
    policy: InputScalePolicy, statistics: CalibrationStatistics | None
) -> Mapping[str, Any]:
    """Return the record of this change for the header."""
    name = policy.path.name if policy.path else None
    return {
        "tool": f"nvfp4-foundry {VERSION}",
        "created": created_now(),
        "input_scale": f"file={name}" if name else str(policy),
        "runs": [run.id for run in statistics.runs] if statistics else [],
    }


def _write(
    file: TensorSource,
    model: TensorSource,
    report: RescaleReport,
    record: Mapping[str, Any],
    target: Path,
    overwrite: bool,
    on_progress: OnProgress | None,
) -> None:
    prefix = model.prefix
    scales = {f"{prefix}{la.name}.{INPUT_SCALE}": la.after for la in report.layers}
    specs = _specs(file, scales)
    provenance = read_provenance(file)
    provenance["rescaled"] = [*provenance.get("rescaled", ()), record]
    metadata = {**file.metadata, PROVENANCE: json.dumps(provenance)}
    total, done = sum(spec.nbytes for spec in specs.values()), 0
    with CheckpointWriter(target, specs, metadata, overwrite=overwrite) as writer:
        for number, (name, spec) in enumerate(specs.items(), 1):
            scale = scales.get(name)
            tensor = file.load(name) if scale is None else torch.tensor(scale, dtype=torch.float32)
            writer.write(name, tensor)
            done += spec.nbytes
            if on_progress:
                on_progress(done, total, numbered("tensor", number, len(specs), name))
        file.close()  # Windows cannot replace an open file
        writer.commit()


def _specs(file: TensorSource, scales: Mapping[str, float | None]) -> dict[str, TensorSpec]:
    """Return the specs of the file's tensors in their order; a new scale follows its weight."""
    specs: dict[str, TensorSpec] = {}
    scalar = TensorSpec((), torch.float32)
    for name, info in file.tensors.items():
        if name in scales:
            if scales[name] is not None:
                specs[name] = scalar
            continue
        specs[name] = TensorSpec(info.shape, info.dtype)
        new = f"{name.removesuffix('.weight')}.{INPUT_SCALE}"
        if name.endswith(".weight") and scales.get(new) is not None:
            specs[new] = scalar
    return specs


def _require_written(target: Path, prefix: str, layers: tuple[RescaledLayer, ...]) -> None:
    """Read the scales back and raise `CheckpointError` if they differ."""
    with open_tensors(target) as written:
        for layer in layers:
            name = f"{prefix}{layer.name}.{INPUT_SCALE}"
            stored = float(written.load(name)) if name in written.tensors else None
            if stored != layer.after:
                raise CheckpointError(
                    f"{target}: {name} reads back as {stored}, but {layer.after} was written. The "
                    "disk may be failing; write the file to another disk"
                )
