"""What a checkpoint says of itself: ComfyUI's announcement of formats, and where it came from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .calibration.statistics import CalibrationStatistics
from .checkpoint.provenance import PROVENANCE
from .conversion_job import ConversionJob
from .formats import get_format
from .planning.plan import Plan
from .report import LayerReport
from .rounding import ROUNDINGS
from .sources.stored_layers import QUANTIZATION_METADATA
from .version import VERSION

# Measured errors are recorded with this many digits after the first; none is longer as text.
_ERROR_DIGITS = 4
_LONGEST_ERROR = 1.2345e-300


def header_metadata(job: ConversionJob, reports: Sequence[LayerReport]) -> dict[str, str]:
    """Return the header's string map: the source's own, ComfyUI's, and where this came from."""
    markers = {
        p.name: dict(get_format(p.format).marker_for(p.shape) or {}) for p in job.plan.quantized()
    }
    quantization = {"format_version": "1.0", "layers": markers}
    return {
        **job.source.metadata,
        QUANTIZATION_METADATA: json.dumps(quantization),
        PROVENANCE: json.dumps(_provenance(job, reports)),
    }


def _provenance(job: ConversionJob, reports: Sequence[LayerReport]) -> dict[str, Any]:
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


def reserved_length(plan: Plan) -> int:
    """Return how much longer `header_metadata` can get once all layers are encoded, in bytes."""
    names = [planned.name for planned in plan.quantized()]
    digests = dict.fromkeys(names, "0" * 8)
    longest = [dict.fromkeys(names, _LONGEST_ERROR), digests, dict.fromkeys(ROUNDINGS, len(names))]
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
