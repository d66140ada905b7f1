"""Header metadata of a checkpoint: ComfyUI's list of formats, and how the file was made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from .. import VERSION
from ..calibration.input_scale import DEFAULT_POLICY
from ..calibration.statistics import CalibrationStatistics
from ..checkpoint.digests import without_digests
from ..checkpoint.layer_record import NUMBERS, TEXTS, LayerRecord, write_records
from ..checkpoint.provenance import PROVENANCE, created_now
from ..checkpoint.source_digests import longest_source_digests, source_digests_entry
from ..formats import for_shape, get_format
from ..planning.plan import PlannedLayer
from ..planning.recipe import Recipe
from ..rounding import ROUNDINGS
from ..sources.stored_layers import QUANTIZATION_METADATA, announced_markers
from .choose_encoding import TAKEN_OVER
from .job import ConversionJob
from .report import LayerReport

# As text, no recorded number is longer than this one.
_LONGEST_NUMBER = 1.2345e-300
_LONGEST_COUNT = 10**12
# Room for the texts of a layer that are known only once it is encoded: what a second-order rounding
# and a corrected bias gained. Longer ones are cut.
_ROOM_FOR_GAINS = 160
_ROOM_FOR_TEXT = 24
_CUTS = (None, 120, 80, 40, 20, 0)


def header_metadata(job: ConversionJob, reports: Sequence[LayerReport]) -> dict[str, str]:
    """Return the header's string map: the source's own entries, ComfyUI's, and the provenance."""
    markers = {
        job.prefix + p.name: dict(
            for_shape(get_format(p.format), p.shape).marker_for(p.shape) or {}
        )
        for p in job.plan.quantized()
    }
    beside = _announced_beside(job)
    quantization = {"format_version": "1.0", "layers": {**beside, **markers}}
    return {
        **without_digests(job.source.metadata),
        QUANTIZATION_METADATA: json.dumps(quantization),
        PROVENANCE: json.dumps(_provenance(job, reports)),
        **source_digests_entry({n: d for r in reports for n, d in r.source_digests.items()}),
    }


def _announced_beside(job: ConversionJob) -> dict[str, Any]:
    """Return the markers of copied layers in the source's header, by full name."""
    if job.rest is None:
        return {}
    return {
        name: marker
        for name, marker in announced_markers(job.rest).items()
        if f"{name}.weight" in job.rest.tensors
    }


def _provenance(job: ConversionJob, reports: Sequence[LayerReport]) -> dict[str, Any]:
    return {
        "tool": f"nvfp4-foundry {VERSION}",
        "created": created_now(),
        "source": Path(job.source.description).name,
        "source_digest": job.source.fingerprint().digest,
        "loras": [asdict(lora) for lora in job.source.loras],
        "architecture": str(job.plan.architecture),
        "recipe": _recipe(job.plan.recipe),
        "calibration": _calibration_summary(job.statistics),
        "roundings": dict(Counter(r.rounding for r in reports if r.rounding)),
        "corrected_biases": {r.name: r.bias_digest for r in reports if r.bias_digest},
        **({"whole_checkpoint": True} if job.whole_file else {}),
        **({"needs_comfyui": job.plan.needs_comfyui} if job.plan.needs_comfyui else {}),
        "bytes_before": job.plan.bytes_before,
        "layers": _records(job, reports),
    }


def _records(job: ConversionJob, reports: Sequence[LayerReport]) -> dict[str, Any]:
    """Return the records of all layers as columns; before they are encoded, what is known then."""
    early = {planned.name: _early_record(job, planned) for planned in job.plan.layers}
    if not reports:
        return write_records(early)
    records = {report.name: _record(report) for report in reports}
    limit = _length(write_records(early)) + _growth(job)
    for cut in _CUTS:
        columns = write_records(records, cut)
        if _length(columns) <= limit:
            return columns
    raise AssertionError("the room for records holds their numbers")


def _record(report: LayerReport) -> LayerRecord:
    return LayerRecord(**{f.name: getattr(report, f.name) for f in fields(LayerRecord)})


def _early_record(job: ConversionJob, planned: PlannedLayer) -> LayerRecord:
    decision = job.decisions.get(planned.name)
    scale = decision.reason if decision else ""
    return LayerRecord(reason=planned.reason, input_scale_reason=scale)


def _growth(job: ConversionJob) -> int:
    """Return by how much the records can grow once the layers are encoded."""
    moments = job.statistics and any(la.moments for la in job.statistics.inputs.values())
    room = _ROOM_FOR_GAINS if moments else _ROOM_FOR_TEXT
    count, quantized = len(job.plan.layers), len(job.plan.quantized())
    index = [quantized] * count
    texts = {name: {"of": [*ROUNDINGS, TAKEN_OVER], "at": index} for name in TEXTS}
    numbers = dict.fromkeys(NUMBERS, [_LONGEST_NUMBER] * count)
    return _length({**texts, **numbers, "calls": [_LONGEST_COUNT] * count}) + room * quantized


def _length(data: Any) -> int:
    return len(json.dumps(json.dumps(data)))  # twice: the provenance is JSON in JSON


def _recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe without defaults. A file of input scales is named without its folder."""
    data = recipe.model_dump(mode="json", exclude_defaults=True)
    policy = recipe.input_scale
    if policy == DEFAULT_POLICY:
        del data["input_scale"]  # pydantic does not compare what a serializer of ours writes
    elif policy.path is not None:
        data["input_scale"] = str(replace(policy, path=Path(policy.path.name)))
    return data


def reserved_length(job: ConversionJob) -> int:
    """Return by how many bytes `header_metadata` can grow once all layers are encoded."""
    names = [planned.name for planned in job.plan.quantized()]
    digests = dict.fromkeys(names, "0" * 8)
    roundings = dict.fromkeys((*ROUNDINGS, TAKEN_OVER), len(names))
    of_source = longest_source_digests(job.source.tensors)
    return _length([digests, roundings, of_source]) + _growth(job)


def _calibration_summary(statistics: CalibrationStatistics | None) -> dict[str, Any] | None:
    if statistics is None:
        return None
    return {
        "runs": [run.id for run in statistics.runs],
        "prompts": sum(len(run.prompts) for run in statistics.runs),
        "model_calls": statistics.model_calls,
        "layers": len(statistics.layers),
    }
