"""Header metadata of a checkpoint: ComfyUI's list of formats, and how the file was made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import VERSION
from ..calibration.input_scale import DEFAULT_POLICY
from ..calibration.statistics import CalibrationStatistics
from ..checkpoint.provenance import PROVENANCE
from ..formats import get_format
from ..planning.plan import Plan
from ..planning.recipe import Recipe
from ..rounding import ROUNDINGS
from ..sources.stored_layers import QUANTIZATION_METADATA, announced_markers
from .choose_encoding import TAKEN_OVER
from .job import ConversionJob
from .report import LayerReport

# Recorded errors have this many digits after the first; as text, no error is longer than this one.
_ERROR_DIGITS = 4
_LONGEST_ERROR = 1.2345e-300


def header_metadata(job: ConversionJob, reports: Sequence[LayerReport]) -> dict[str, str]:
    """Return the header's string map: the source's own entries, ComfyUI's, and the provenance."""
    markers = {
        job.prefix + p.name: dict(get_format(p.format).marker_for(p.shape) or {})
        for p in job.plan.quantized()
    }
    beside = _announced_beside(job)
    quantization = {"format_version": "1.0", "layers": {**beside, **markers}}
    return {
        **job.source.metadata,
        QUANTIZATION_METADATA: json.dumps(quantization),
        PROVENANCE: json.dumps(_provenance(job, reports)),
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
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": Path(job.source.description).name,
        "source_digest": job.source.fingerprint().digest,
        "loras": [asdict(lora) for lora in job.source.loras],
        "architecture": str(job.plan.architecture),
        "recipe": _recipe(job.plan.recipe),
        "calibration": _calibration_summary(job.statistics),
        "roundings": dict(Counter(r.rounding for r in reports if r.rounding)),
        "corrected_biases": {r.name: r.bias_digest for r in reports if r.bias_digest},
        "errors": {
            r.name: float(f"{r.weight_error:.{_ERROR_DIGITS}e}")
            for r in reports
            if r.weight_error is not None
        },
    }


def _recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe without defaults. A file of input scales is named without its folder."""
    data = recipe.model_dump(mode="json", exclude_defaults=True)
    policy = recipe.input_scale
    if policy == DEFAULT_POLICY:
        del data["input_scale"]  # pydantic does not compare what a serializer of ours writes
    elif policy.path is not None:
        data["input_scale"] = str(replace(policy, path=Path(policy.path.name)))
    return data


def reserved_length(plan: Plan) -> int:
    """Return by how many bytes `header_metadata` can grow once all layers are encoded."""
    names = [planned.name for planned in plan.quantized()]
    digests = dict.fromkeys(names, "0" * 8)
    roundings = dict.fromkeys((*ROUNDINGS, TAKEN_OVER), len(names))
    longest = [dict.fromkeys(names, _LONGEST_ERROR), digests, roundings]
    return len(json.dumps(json.dumps(longest)))  # twice: the provenance is JSON in JSON


def _calibration_summary(statistics: CalibrationStatistics | None) -> dict[str, Any] | None:
    if statistics is None:
        return None
    return {
        "runs": [run.id for run in statistics.runs],
        "prompts": sum(len(run.prompts) for run in statistics.runs),
        "model_calls": statistics.model_calls,
        "layers": len(statistics.layers),
    }
