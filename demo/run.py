"""``nvfp4 demo``: run the whole pipeline on the tiny trained WAN in about a minute.

The demo samples, calibrates, quantizes several variants to files, verifies them, loads them,
samples again and compares. Only the GPU is emulated. Calibration, plans, files and verification are
the same as for a full-size model.

The comparison computes in float32, which holds the stored weights exactly. So the errors come only
from quantization, without the 0.8% that a computation in bfloat16 adds to these latents.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    delete_moments,
    save_statistics,
)
from ..quant.checkpoint import verify_checkpoint
from ..quant.conversion.convert import convert
from ..quant.conversion.report import ConversionReport
from ..quant.errors import CheckpointError, SourceError
from ..quant.files.write import make_folder, write_text, written_whole
from ..quant.formats import get_format
from ..quant.planning import Plan, get_preset, make_plan, take_inventory
from ..quant.reports.page import render_page
from ..quant.reports.view import conversion_view
from ..quant.rounding import DEFAULT_ROUNDING
from ..quant.sources import TensorSource, open_source
from .digits import CLASSES, DIGITS_PATH, DigitsTask, load_task
from .judge import Judge, load_judge
from .model import MODEL_PATH, TinyWan, load_model
from .picture import Row, draw_rows
from .quantized import load_quantized
from .result import DemoResult, VariantResult
from .sampling import sample

GUIDANCE = 2.0
#: Seeds of the noise. The comparison uses noise that the calibration has not seen.
CALIBRATION_SEEDS = (1, 2, 3)
COMPARISON_SEED = 1000

#: The Hessians of this model need a hundredth of this budget.
HESSIAN_BYTES = 2**30

CALIBRATION_FILE = "calibration.safetensors"
PICTURE_FILE = "samples.png"
REPORT_FILES = ("report.html", "report.json")

PICTURE_COLUMNS = 20
DIFFERENCE_GAIN = 5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """One way to quantize the model."""

    name: str
    title: str
    preset: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    calibrated: bool = True
    rounding: str = DEFAULT_ROUNDING

    @property
    def file_name(self) -> str:
        """The name of the checkpoint in the output folder."""
        return f"tiny_wan_{self.name}.safetensors"


VARIANTS = (
    # The result of converters that use the max rule and no calibration.
    Variant("nvfp4_max", "all NVFP4, max, dynamic", "all", calibrated=False, rounding="max"),
    Variant("nvfp4_max_static", "all NVFP4, max, static", "all", rounding="max"),
    Variant("nvfp4_static", "all NVFP4, static", "all"),
    Variant("nvfp4_gptq", "all NVFP4, gptq, static", "all", rounding="gptq"),
    Variant("nvfp4_gptaq", "all NVFP4, gptaq, static", "all", rounding="gptaq"),
    # One edge block at each end, because the preset's default of two would cover all four blocks.
    Variant(
        "mixed_static",
        "mixed (wan2.2-14b), gptaq, static",
        "wan2.2-14b",
        {"edge_blocks": 1},
        rounding="gptaq",
    ),
)
#: The variant that the report describes.
REPORTED = "mixed_static"


@dataclass(frozen=True)
class _Setup:
    """Values that every step of a demo needs."""

    folder: Path
    steps: int
    labels: Tensor
    task: DigitsTask
    judge: Judge
    say: Say

    def latents(self, model: TinyWan) -> Tensor:
        """Return sampled latents of the digits to compare."""
        return sample(model, self.labels, COMPARISON_SEED, self.steps, GUIDANCE, task=self.task)

    def accuracy(self, latents: Tensor) -> float:
        """Return the share of correct digits."""
        return self.judge.accuracy(self.task.decode(latents), self.labels)


@contextmanager
def _single_thread() -> Iterator[None]:
    """Compute on one thread, because the operations are so short that threads mostly wait.

    On a busy machine, several threads are several times slower than one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_single_thread()
def run_demo(
    output: Path,
    quiet: bool = False,
    *,
    images: int = 60,
    calibration_images: int = 20,
    steps: int = 20,
) -> DemoResult:
    """Run the demo.

    Writes ``calibration.safetensors``, one ``tiny_wan_*.safetensors`` per variant,
    ``report.html``, ``report.json`` and ``samples.png`` into a folder, which is made if needed.
    Replaces existing files of these names, so that the demo can run again. Does not change other
    files.

    Args:
        output: the folder.
        quiet: whether to print nothing. Otherwise, one line per step goes to standard error.
        images: number of digits to compare.
        calibration_images: number of digits per calibration run.
        steps: sampling steps in calibration and comparison.

    Raises:
        SourceError: the model or the digits of the demo are missing.
        FileError: the folder cannot be made, or a file cannot be written.
        CheckpointError: a written checkpoint fails verification.
    """
    started = time.monotonic()
    _require_files()
    setup = _Setup(
        folder=make_folder(output),
        steps=steps,
        labels=torch.arange(images) % CLASSES,
        task=load_task(),
        judge=load_judge(),
        say=_silent if quiet else _say_since(started),
    )
    model = load_model()
    setup.say(f"sampling {images} digits with the bf16 model")
    reference = setup.latents(model)
    statistics, reports = _calibrate_and_quantize(setup, model, calibration_images)
    results, latents = [], {}
    for variant in VARIANTS:
        result, latents[variant.name] = _compare(setup, variant, reports[variant.name], reference)
        results.append(result)
    _draw(setup, reference, results, latents)
    return DemoResult(
        folder=str(setup.folder),
        images=images,
        steps=steps,
        calibration_calls=statistics.model_calls,
        reference_path=str(MODEL_PATH),
        reference_bytes=MODEL_PATH.stat().st_size,
        reference_accuracy=setup.accuracy(reference),
        variants=tuple(results),
        calibration=str(setup.folder / CALIBRATION_FILE),
        picture=str(setup.folder / PICTURE_FILE),
        reports=tuple(str(setup.folder / name) for name in REPORT_FILES),
        seconds=time.monotonic() - started,
    )


def _require_files() -> None:
    """Raise `SourceError` if the download lacks a file of the demo."""
    missing = [path for path in (MODEL_PATH, DIGITS_PATH) if not path.is_file()]
    if missing:
        names = " and ".join(str(path) for path in missing)
        raise SourceError(
            f"the demo's files are not part of this download ({names} missing); run the demo from "
            "a clone of the repository"
        )


def _calibrate_and_quantize(
    setup: _Setup, model: TinyWan, calibration_images: int
) -> tuple[CalibrationStatistics, dict[str, ConversionReport]]:
    """Write the calibration and a checkpoint of every variant; return the reports by variant."""
    with open_source(MODEL_PATH) as source:
        plans = {variant.name: _plan(variant, source) for variant in VARIANTS}
        statistics = _calibrate(setup, model, source, plans[REPORTED], calibration_images)
        reports = {
            variant.name: _quantize(setup, variant, plans[variant.name], source, statistics)
            for variant in VARIANTS
        }
    return statistics, reports


def _plan(variant: Variant, source: TensorSource) -> Plan:
    recipe = get_preset(variant.preset).build(variant.settings).with_numbers(variant.rounding)
    return make_plan(recipe, take_inventory(source))


def _calibrate(
    setup: _Setup, model: TinyWan, source: TensorSource, plan: Plan, count: int
) -> CalibrationStatistics:
    """Calibrate the model while it samples with both branches, and save the calibration."""
    collector = ActivationCollector(CollectorSettings(moments_budget_bytes=HESSIAN_BYTES))
    labels = torch.arange(count) % CLASSES
    layers = {planned.name for planned in plan.quantized()}
    for seed in CALIBRATION_SEEDS:
        setup.say(f"calibrating on {count} digits, seed {seed}")
        collector.new_run(
            [f"digit {digit}" for digit in sorted(set(labels.tolist()))],
            {"seed": seed, "steps": setup.steps, "cfg": GUIDANCE, "images": count},
        )
        with collector.observe(model, layers):
            sample(model, labels, seed, setup.steps, GUIDANCE, collector.begin_call, setup.task)
    path = setup.folder / CALIBRATION_FILE
    statistics = collector.snapshot(source.fingerprint())
    save_statistics(statistics, path)
    delete_moments(path)  # those of an earlier demo, which this calibration does not list
    return statistics


def _quantize(
    setup: _Setup,
    variant: Variant,
    plan: Plan,
    source: TensorSource,
    statistics: CalibrationStatistics,
) -> ConversionReport:
    """Write and verify one checkpoint, and write the report of the reported variant."""
    setup.say(f"quantizing: {variant.title}")
    target = setup.folder / variant.file_name
    calibration = statistics if variant.calibrated else None
    report = convert(source, plan, target, statistics=calibration, overwrite=True)
    verdict = verify_checkpoint(target, MODEL_PATH)
    if not verdict.ok:
        raise CheckpointError(f"{target} failed verification: {'; '.join(verdict.problems)}")
    if variant.name == REPORTED:
        page = render_page(conversion_view(report, calibration))
        for name, text in zip(REPORT_FILES, (page, report.dumps()), strict=True):
            write_text(setup.folder / name, text)
    return report


def _compare(
    setup: _Setup, variant: Variant, report: ConversionReport, reference: Tensor
) -> tuple[VariantResult, Tensor]:
    """Sample with a written checkpoint, and return its figures and its W4A4 latents."""
    path = setup.folder / variant.file_name
    setup.say(f"sampling with {path.name}, 16-bit activations")
    weight_only = setup.latents(load_quantized(path, round_activations=False))
    setup.say(f"sampling with {path.name}, rounded activations")
    latents = setup.latents(load_quantized(path, round_activations=True))
    result = VariantResult(
        name=variant.name,
        title=variant.title,
        path=str(path),
        file_bytes=path.stat().st_size,
        bits_per_weight=_bits_per_weight(report),
        static_scales=sum(layer.input_scale is not None for layer in report.layers),
        error_w4a16=relative_error(weight_only, reference),
        error_w4a4=relative_error(latents, reference),
        accuracy=setup.accuracy(latents),
    )
    return result, latents


def relative_error(latents: Tensor, reference: Tensor) -> float:
    """Return ``||latents - reference|| / ||reference||``."""
    return float((latents - reference).norm() / reference.norm())


def _bits_per_weight(report: ConversionReport) -> float:
    """Return the stored bits per weight of the Linear layers inside the blocks."""
    layers = [la for la in report.layers if la.kind == "linear" and la.name.startswith("blocks.")]
    stored = sum(get_format(la.format).nbytes(la.shape, torch.bfloat16) for la in layers)
    return 8 * stored / sum(prod(la.shape) for la in layers)


def _draw(
    setup: _Setup,
    reference: Tensor,
    results: list[VariantResult],
    latents: Mapping[str, Tensor],
) -> None:
    """Draw the first digits of the reference and of each variant, and their differences."""
    wanted = setup.task.decode(reference)[:PICTURE_COLUMNS]
    rows = [Row("bf16", "the model as it was trained", wanted)]
    for result in results:
        images = setup.task.decode(latents[result.name])[:PICTURE_COLUMNS]
        note = f"{result.bits_per_weight:.2f} bits, latent error {result.error_w4a4:.1%}"
        rows += [
            Row(result.title, note, images),
            Row(
                "",
                f"difference from bf16, x{DIFFERENCE_GAIN}",
                (images - wanted) * DIFFERENCE_GAIN,
                is_difference=True,
            ),
        ]
    subtitle = (
        f"{setup.steps} steps from equal noise; weights and activations rounded as on Blackwell. "
        "Differences: orange is brighter, blue is darker than bf16."
    )
    with written_whole(setup.folder / PICTURE_FILE) as file:
        draw_rows("Digits from the demo model", subtitle, rows).save(file, "PNG")


def _silent(line: str) -> None:
    pass


def _say_since(started: float) -> Say:
    def say(line: str) -> None:
        print(f"{time.monotonic() - started:5.1f} s  {line}", file=sys.stderr, flush=True)

    return say
