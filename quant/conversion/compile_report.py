"""What a conversion did, and what the user should know of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..formats import get_format
from ..rounding import NEED_MOMENTS
from ..text import shorten
from .job import ConversionJob
from .report import ConversionReport, LayerReport


def conversion_report(
    job: ConversionJob, layers: tuple[LayerReport, ...], target: str
) -> ConversionReport:
    """Return the report of a conversion that is done.

    ``layers`` are in the plan's order; ``target`` is the file's name, empty if there is none.
    """
    return ConversionReport(
        source=job.source.description,
        loras=job.source.loras,
        target=target,
        recipe=job.plan.recipe.name,
        architecture=str(job.plan.architecture),
        rounding=job.plan.recipe.rounding,
        layers=layers,
        warnings=(
            *job.plan.warnings,
            *_calibration_warnings(job),
            *_result_warnings(job, layers),
        ),
        notes=(*job.source.notes, *_rest_notes(job)),
        calibration=_describe_calibration(job),
        seconds=time.monotonic() - job.started,
    )


def _describe_calibration(job: ConversionJob) -> str:
    if job.statistics is None:
        return "none"
    covered = len(job.statistics.coverage(job.decisions).covered)
    return (
        f"{len(job.statistics.runs)} runs, {job.statistics.model_calls} model calls, "
        f"{covered} of {len(job.decisions)} layers covered"
    )


def _rest_notes(job: ConversionJob) -> Iterator[str]:
    """Say what became of the tensors beside the model."""
    if job.source.rest is None:
        return
    count, size = len(job.source.rest.tensors), job.source.rest.nbytes
    fate = "copied as they are" if job.whole_file else "left out: the result is the model alone"
    yield f"{count} tensors beside the diffusion model ({size / 1e9:.2f} GB) are {fate}"


def _calibration_warnings(job: ConversionJob) -> Iterator[str]:
    """Say where the calibration does not quite fit the model."""
    if job.statistics is None:
        return
    drift = job.statistics.fingerprint.drift(job.source.fingerprint())
    if drift and any(layer.tensor.stored for layer, _ in job.layers):
        yield (
            "the calibration was made on other weights, as before the source was quantized "
            f"({drift}). It is nearly right"
        )
    elif drift:
        yield (
            f"the calibration was made on other weights, such as without a LoRA that is applied "
            f"now ({drift}). It is nearly right; for the best result calibrate the merged model, "
            "under a new name"
        )
    coverage = job.statistics.coverage(job.decisions)
    if coverage.uncovered:
        yield f"never observed: {shorten(coverage.uncovered)}"
    if coverage.partial:
        yield f"observed in part: {shorten(coverage.partial)}"


def _result_warnings(job: ConversionJob, layers: tuple[LayerReport, ...]) -> Iterator[str]:
    """Say where the layers did not get what was asked for, or run at a risk."""
    rounding = job.plan.recipe.rounding
    could = any(get_format(la.format).feedback_block for la in layers)
    if rounding in NEED_MOMENTS and could and not any(la.rounding in NEED_MOMENTS for la in layers):
        yield (
            f"no layer got {rounding}: it needs a calibration with Hessians (hessians_mb in "
            "Calibrate), and to prove itself on held-out inputs"
        )
    clipped = [la.name for la in layers if la.runtime_scale == "1.0"]
    if clipped and not job.plan.architecture.is_text_encoder:
        yield (
            f"{len(clipped)} float8 layers have no static input_scale: where float8 is native, "
            "ComfyUI clips their activations at 448. Calibrate to avoid that."
        )
