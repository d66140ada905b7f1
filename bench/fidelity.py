"""Measure how much error each rounding leaves, compared with the max rule of other converters.

There are single layers with synthetic weights and inputs, layers with the shapes and activation
levels of WAN 2.2, four whole models, and the layers of those models. Everything is seeded, and
every figure is on inputs that the calibration has not seen. The extra ``bench`` brings what the
sentence encoder and the small Flux need.

    python bench/fidelity.py --output docs/fidelity.md

writes all tables of that page, each as soon as it is made; ``--part demo flux`` makes two of them,
and ``--jobs 2`` makes two parts at a time. Every part ends with the time it took.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from fidelity_encoder import CALIBRATING, JUDGING, encoder_subject
from fidelity_flux import flux_subject
from fidelity_layers import ROUNDINGS, LayerCase, LayerResult, measure_layer
from fidelity_models import (
    MIX_ROUNDING,
    ModelResult,
    Subject,
    demo_subject,
    qwen_subject,
)
from fidelity_page import put_section
from input_statistics import STATISTICS, statistics_table

SYNTHETIC = tuple(
    LayerCase(f"{weights}{', 12 outliers' if outliers else ''}", 512, 1024, heavy, outliers)
    for weights, heavy in (("Gaussian", False), ("Student-t(4)", True))
    for outliers in (0, 12)
)
# The levels were measured in WAN 2.2 5B. The layers have fewer outputs than those of the model,
# which does not change any ratio.
WAN = (
    LayerCase("cross_attn.q, amax 50", 768, 3072, True, 12, amax=50.0),
    LayerCase("self_attn.q/k/v, amax 8.5", 768, 3072, True, 4, amax=8.5, prompt_spread=1.5),
    LayerCase("cross_attn.o, spread 4.7", 768, 3072, True, 0, amax=2.7, prompt_spread=4.7),
    LayerCase("ffn.0, amax 8", 768, 3072, True, 4, amax=8.0, prompt_spread=1.7),
    LayerCase("ffn.2 (a quarter), GELU", 768, 3584, True, 12, amax=20.0, gelu=True),
)
#: As small as NVFP4, with 8-bit activations. Its *W4A4* error is that of its own native product.
EIGHT_BIT_INPUTS = "asym_w4a8_int8"
SEEDS, SAMPLES, FLUX_SAMPLES = 3, 400, 48

INTRO = """\
How much error each rounding leaves, compared with the rule of other converters (`max`). \
[Methods](methods.md) describes the roundings.

- All rows of one section have the same size, calibration and seeds. Every figure is on inputs \
that the calibration has not seen.
- W4A16 means 16-bit activations, as on GPUs without native NVFP4. W4A4 means activations rounded \
to NVFP4 as well, as on Blackwell.
- *Ratio* compares the squared errors of all samples together. A few samplings take another turn, \
and can decide it. *Typical* is the geometric mean of the ratios of single samples, with its \
standard error. Differences within two standard errors say nothing.
- Smaller is better everywhere.

The page has two parts: [tables](#tables), made by a script, and [notes](#notes), taken while the \
pack was developed.
"""


def layer_table(cases: Sequence[LayerCase], seeds: int) -> Iterator[str]:
    """Yield the Markdown lines of a table with medians over the seeds."""
    yield "| layer | rounding | kept | weight | W4A16 | W4A4 | W4A4 of max | static / dynamic |"
    yield "|---|---|---|---|---|---|---|---|"
    for case in cases:
        by_rounding: dict[str, list[LayerResult]] = {name: [] for name in ROUNDINGS}
        for seed in range(seeds):
            for result in measure_layer(case, seed, tokens=8 * case.in_features):
                by_rounding[result.rounding].append(result)
        for rounding, results in by_rounding.items():
            kept = sum(r.used == rounding for r in results)
            yield (
                f"| {case.title} | `{rounding}` | {kept} of {len(results)} | "
                f"{_median(r.weight for r in results):.3f} | "
                f"{_median(r.w4a16 for r in results):.3f} | "
                f"{_median(r.w4a4 for r in results):.3f} | "
                f"{_median(r.max_w4a4 for r in results):.2%} | "
                f"{_median(r.static_over_dynamic for r in results):.4f} |"
            )


def model_table(results: Sequence[ModelResult]) -> Iterator[str]:
    """Yield the Markdown lines of a table with ratios to the first result, that of `max`."""
    base = results[0]
    yield (
        "| model | MB | W4A16 error | ratio | typical | W4A4 error | ratio | typical | recognised |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for result in results:
        typical = _typical(result, base)
        recognised = "-" if result.accuracy is None else f"{result.accuracy:.2%}"
        yield (
            f"| {result.title} | {result.megabytes:.2f} | {result.w4a16**0.5:.2%} | "
            f"{result.w4a16 / base.w4a16:.3f} | {typical[0]} | {result.w4a4**0.5:.2%} | "
            f"{result.w4a4 / base.w4a4:.3f} | {typical[1]} | {recognised} |"
        )


def _typical(result: ModelResult, base: ModelResult) -> list[str]:
    """Return the ratios of paired samples with their standard errors, W4A16 then W4A4."""
    if result is base:
        return ["1.000", "1.000"]
    return [f"{mean:.3f} ± {error:.3f}" for mean, error in result.typical_ratios(base)]


def whole_model(subject: Subject, preset: str, settings: dict[str, int]) -> Iterator[ModelResult]:
    """Yield the model with all layers in NVFP4 by each rounding, then in mixed precision.

    Says each on standard error, because a table appears only when it is whole.
    """
    for result in _whole_model(subject, preset, settings):
        print(f"    {result.title}", file=sys.stderr, flush=True)
        yield result


def _whole_model(subject: Subject, preset: str, settings: dict[str, int]) -> Iterator[ModelResult]:
    dynamic = subject.quantize(subject.plan("all", "max"), static=False)
    yield subject.measure("all NVFP4, max, dynamic", dynamic)
    for rounding in ROUNDINGS:
        checkpoint = subject.quantize(subject.plan("all", rounding))
        yield subject.measure(f"all NVFP4, {rounding}", checkpoint)
    for rounding in ("max", "gptq"):
        checkpoint = subject.quantize(subject.plan("all", rounding, format=EIGHT_BIT_INPUTS))
        yield subject.measure(f"all `{EIGHT_BIT_INPUTS}`, {rounding}", checkpoint)
    for rounding in ("max", MIX_ROUNDING):
        guess = subject.plan(preset, rounding, **settings)
        yield subject.measure(f"{preset}, {rounding}", subject.quantize(guess))
    mix = subject.mixed(subject.plan(preset, MIX_ROUNDING, **settings))
    yield subject.measure(f"auto mix at that size, {MIX_ROUNDING}", subject.quantize(mix))


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def synthetic_layers(quick: bool) -> Iterator[str]:
    """Yield the section on synthetic layers."""
    seeds = 1 if quick else SEEDS
    yield "### Synthetic layers"
    yield ""
    yield (
        f"1024 -> 512, 8 tokens per channel, medians of {seeds} seeds. *weight*, *W4A16* and "
        "*W4A4* are squared errors, as ratios to `max`. *kept* counts how often the pack accepted "
        "the rounding. *static / dynamic* is the W4A4 error with the calibrated activation scale, "
        "divided by the W4A4 error with the runtime's own scale."
    )
    yield ""
    yield from layer_table(SYNTHETIC, seeds)


def wan_layers(quick: bool) -> Iterator[str]:
    """Yield the section on layers like WAN's."""
    yield "### Layers like WAN 2.2's"
    yield ""
    yield (
        "Widths, largest activations and the spread between prompts are as in published "
        "statistics of WAN 2.2. Weights are Student-t(4)."
    )
    yield ""
    yield from layer_table(WAN[:2] if quick else WAN, 1)


def demo_model(quick: bool, shift: float) -> Iterator[str]:
    """Yield the section on the demo model, sampled with this shift of the schedule."""
    samples = 40 if quick else SAMPLES
    yield f"### The demo model, shift {shift:g}"
    yield ""
    with demo_subject(samples, shift) as subject:
        results = list(whole_model(subject, "wan2.2-14b", {"edge_blocks": 1}))
        yield (
            f"{samples} digits, 20 Euler steps, guidance 2, equal noise. The errors are errors of "
            "the latents. The ratios compare squared errors with the first row. With exact weights "
            f"and 4-bit activations, the W4A4 ratio is {subject.floor() / results[0].w4a4:.3f}. "
            f"The bf16 model draws {subject.reference_accuracy:.2%} of the digits correctly."
        )
    yield ""
    yield from model_table(results)


def random_qwen(quick: bool) -> Iterator[str]:
    """Yield the section on the random model."""
    yield "### A small random Qwen-Image"
    yield ""
    yield "6 blocks of width 256. The errors are errors of the velocity in unseen model calls."
    yield ""
    with qwen_subject() as subject:
        yield from model_table(list(whole_model(subject, "qwen-image-2512", {})))


def small_flux(quick: bool) -> Iterator[str]:
    """Yield the section on the small Flux."""
    samples = 12 if quick else FLUX_SAMPLES
    yield "### A small trained Flux"
    yield ""
    with flux_subject(samples) as subject:
        results = list(whole_model(subject, "flux1", {}))
        yield (
            f"{samples} patches of 32x32 pixels, 20 Euler steps, guidance 2, equal noise. The "
            "errors are errors of the pixels. With exact weights and 4-bit activations, the W4A4 "
            f"ratio is {subject.floor() / results[0].w4a4:.3f}. A linear judge recognises "
            f"{subject.reference_accuracy:.1%} of the bf16 model's patches."
        )
    yield ""
    yield from model_table(results)


def sentence_encoder(quick: bool) -> Iterator[str]:
    """Yield the section on the sentence encoder."""
    judging, calibrating = (50, 300) if quick else (JUDGING, CALIBRATING)
    yield "### A sentence encoder"
    yield ""
    with encoder_subject(judging, calibrating) as subject:
        results = [
            subject.measure(f"smart, {name}", subject.quantize(subject.plan("smart", name)))
            for name in ROUNDINGS
        ]
        yield (
            "all-MiniLM-L6-v2 by the preset `smart`: 24 of 36 Linear layers are NVFP4, and those "
            f"of the edge blocks float8. Calibrated on {calibrating} paragraphs of docstrings, and "
            f"judged on {judging} from other files. The errors are errors of the embeddings. With "
            "exact weights and rounded activations, the W4A4 ratio is "
            f"{subject.floor('smart') / results[0].w4a4:.3f}. Most of the megabytes are embeddings."
        )
    yield ""
    yield from model_table(results)


def model_layers(quick: bool) -> Iterator[str]:
    """Yield the section on the layers of all models."""
    yield "### The layers of the models"
    yield ""
    yield (
        "All Linear layers in blocks are NVFP4 with static scales. The figures are squared W4A4 "
        "output errors of the layers on held-out inputs, as ratios to `max`. *Worse* means worse "
        "by more than 1%."
    )
    yield ""
    yield "| model | rounding | best | median | worst | worse than `max` |"
    yield "|---|---|---|---|---|---|"
    tables = []
    for title, subject_of in _LAYER_SUBJECTS.items():
        with subject_of() as subject:
            errors = {name: subject.layer_errors(subject.plan("all", name)) for name in ROUNDINGS}
            yield from layer_ratios(title, errors)
            tables += ["", f"#### Inputs of {title}", "", *statistics_table(subject, errors)]
    yield ""
    yield STATISTICS
    yield from tables


def layer_ratios(title: str, errors: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield a table's lines on the layer errors of one model, by rounding and layer."""
    for name, own in errors.items():
        ratios = sorted((error / errors["max"][layer]) ** 2 for layer, error in own.items())
        worse = sum(ratio > 1.01 for ratio in ratios)
        yield (
            f"| {title} | `{name}` | {ratios[0]:.3f} | {_median(ratios):.3f} | {ratios[-1]:.3f} | "
            f"{worse} of {len(ratios)} |"
        )


_LAYER_SUBJECTS: dict[str, Callable[[], AbstractContextManager[Subject]]] = {
    "the demo model": partial(demo_subject, 10, 8.0),
    "the random Qwen-Image": qwen_subject,
    "the small Flux": partial(flux_subject, 12),
    "the sentence encoder": partial(encoder_subject, 10),
}

PARTS: dict[str, Callable[[bool], Iterator[str]]] = {
    "synthetic": synthetic_layers,
    "wan": wan_layers,
    # ComfyUI samples WAN with a shift of 8, and the demo model was trained for this shift.
    "demo": partial(demo_model, shift=8.0),
    "demo-unshifted": partial(demo_model, shift=1.0),
    "qwen": random_qwen,
    "flux": small_flux,
    "encoder": sentence_encoder,
    "layers": model_layers,
}


def main() -> None:
    """Print the tables, and write them into a page if asked."""
    parser = argparse.ArgumentParser(
        description="Measure how much error each rounding leaves, compared with the max rule."
    )
    parser.add_argument("--quick", action="store_true", help="fewer seeds, layers and samples")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="only these parts")
    parser.add_argument("--jobs", type=int, default=1, help="parts to make at the same time")
    parser.add_argument("--output", type=Path, help="also write the tables into this page")
    options = parser.parse_args()
    command = "python bench/fidelity.py" + (" --quick" if options.quick else "")
    made_by = (
        f"These tables were made by `{command} --output docs/fidelity.md`, torch "
        f"{torch.__version__}. With `--part`, it makes some of them again."
    )
    for lines in made_parts(options.part, options.quick, options.jobs):
        if options.output:
            put_section(options.output, INTRO, made_by, lines)


def made_parts(parts: Sequence[str], quick: bool, jobs: int) -> Iterator[list[str]]:
    """Yield the lines of each part when it is ready."""
    if jobs == 1:
        yield from (make_part(part, quick) for part in parts)
        return
    fresh = get_context("spawn")  # a forked torch can wait for threads that it does not have
    with ProcessPoolExecutor(jobs, fresh, torch.set_num_threads, (1,)) as pool:
        for done in as_completed(pool.submit(make_part, part, quick) for part in parts):
            yield done.result()


def make_part(part: str, quick: bool) -> list[str]:
    """Return the lines of one part, and print them with the time that it took."""
    started, used = time.monotonic(), time.process_time()
    lines = list(PARTS[part](quick))
    passed, computed = time.monotonic() - started, time.process_time() - used
    took = f"{part}: {passed:.0f} s, {computed:.0f} s of computing"
    print("\n".join([*lines, "", took, ""]), flush=True)
    return lines


if __name__ == "__main__":
    main()
