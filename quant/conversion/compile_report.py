"""Compile the report of a conversion, with notes and warnings for the user."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..formats import get_format
from ..rounding import NEED_MOMENTS
from ..text import shorten
from .job import ConversionJob
from .lora_advice import lora_advice
from .report import ConversionReport, LayerReport


def conversion_report(
    job: ConversionJob, layers: tuple[LayerReport, ...], target: str
) -> ConversionReport:
    """Return the report of a finished conversion.

    ``layers`` are in the plan's order. ``target`` is the name of the file, empty if there is none.
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
            *calibration_warnings(job),
            *_result_warnings(job, layers),
        ),
        notes=(*job.source.notes, *_rest_notes(job), *job.plan.version_notes),
        advice=tuple(_advice(job)),
        needs_comfyui=job.plan.needs_comfyui,
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
    """Yield a note on the tensors beside the model."""
    if job.source.rest is None:
        return
    count, size = len(job.source.rest.tensors), job.source.rest.nbytes
    done = "copied as they are" if job.whole_file else "left out: the result is the model alone"
    yield f"{count} tensors beside the diffusion model ({size / 1e9:.2f} GB) are {done}"


def _advice(job: ConversionJob) -> Iterator[str]:
    """Yield how to use the result. LoRAs are for diffusion models."""
    advice = lora_advice(job.plan.counts())
    if advice and not job.plan.architecture.is_text_encoder:
        yield advice


def calibration_warnings(job: ConversionJob) -> Iterator[str]:
    """Yield warnings if the calibration does not fit the model exactly or covers it in part."""
    if job.statistics is None:
        return
    drift = job.statistics.fingerprint.drift(job.source.fingerprint())
    if drift and any(layer.tensor.stored for layer, _ in job.layers):
        yield (
            "the calibration was made on other weights, such as the model before it was quantized "
            f"({drift}). Its scales are nearly right"
        )
    elif drift:
        yield (
            "the calibration was made on other weights, such as the model without its LoRA "
            f"({drift}). Its scales are nearly right; for the best result calibrate the model with "
            "the LoRA under another name"
        )
    coverage = job.statistics.coverage(job.decisions)
    if coverage.uncovered:
        yield f"never observed: {shorten(coverage.uncovered)}"
    if coverage.partial:
        yield f"observed in part: {shorten(coverage.partial)}"


def _result_warnings(job: ConversionJob, layers: tuple[LayerReport, ...]) -> Iterator[str]:
    """Yield warnings if no layer got the requested rounding, or if activations may be clipped."""
    rounding = job.plan.recipe.rounding
    could = any(get_format(la.format).feedback_block for la in layers)
    if rounding in NEED_MOMENTS and could and not any(la.rounding in NEED_MOMENTS for la in layers):
        yield (
            f"no layer got {rounding}: it needs a calibration with Hessians (set hessians_mb in "
            "Calibrate), and must do better than the default rounding on held-out inputs"
        )
    clipped = [la.name for la in layers if la.runtime_scale == "1.0"]
    if clipped and not job.plan.architecture.is_text_encoder:
        yield (
            f"{len(clipped)} float8 layers have no static input_scale. On GPUs with native float8, "
            "ComfyUI clips their activations at 448; calibrate to avoid that"
        )
