"""Runs the arithmetic of the pack on a pretended GPU and on the CPU: ``FOLDER``.

Writes ``FOLDER/result.json``: what a GPU would have to do, and whether the results are the same.
Needs a CUDA build of torch, such as that of ComfyUI's own Python, but neither ComfyUI nor a GPU.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from foundry_package import ROOT, import_foundry
from pretended_gpu import GPU, PretendedGpu, Record

import_foundry()

from feedback_memory import feedback_memory  # noqa: E402
from nvfp4_foundry.quant.calibration import (  # noqa: E402
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    collector,
)
from nvfp4_foundry.quant.conversion.choose_encoding import choose_encoding  # noqa: E402
from nvfp4_foundry.quant.conversion.convert import convert  # noqa: E402
from nvfp4_foundry.quant.conversion.observed_input import ObservedInputs  # noqa: E402
from nvfp4_foundry.quant.formats import (  # noqa: E402
    FORMATS,
    base,
    codebook_rows,
    float8_scales,
    for_shape,
    get_format,
)
from nvfp4_foundry.quant.hardware import emulation  # noqa: E402
from nvfp4_foundry.quant.planning import (  # noqa: E402
    Recipe,
    make_plan,
    parse_rule_lines,
    take_inventory,
)
from nvfp4_foundry.quant.rounding import SecondMoments, get_rounding  # noqa: E402
from nvfp4_foundry.quant.sensitivity import measure, probe, probed_layers  # noqa: E402
from nvfp4_foundry.quant.sources import SafetensorsFile  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

# A layer as wide as a GPU's chunk allows is tried with small chunks: only their number counts.
CHUNKS, ROWS_OF_CHUNK, WIDTH = 3, 128, 256
CHUNK = ROWS_OF_CHUNK * WIDTH
# These have the arithmetic of another format, and differ in their markers.
SAME_ARITHMETIC = {"nvfp4_w4a16", "float8_e4m3fn_w8a16", "convrot_w4a8", "keep", "bf16"}
# The roundings whose choice is tried, by format.
CHOSEN = {"nvfp4": ("max", "weighted", "gptaq"), "float8_e4m3fn": ("weighted",)}
Tensors = Mapping[str, torch.Tensor]

gpu = PretendedGpu(ROOT / "quant")


def weight_of(rows: int, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    """Return a weight with an outlier, and with a block that is too small for any scale."""
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 0.02
    weight[1, 3] = 1.0
    weight[2, :64] = 1e-9
    return weight.bfloat16()


def inputs_of(seed: int, width: int = WIDTH) -> torch.Tensor:
    """Return tokens in few directions with an offset, so that gptq and the bias can gain."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(8, width, generator=torch.Generator().manual_seed(0))
    return torch.randn(400, 8, generator=generator) @ mixing + 0.5


def moments_of(rows: torch.Tensor) -> SecondMoments:
    rounded = get_format("nvfp4").emulate_activations(rows, None)
    error = rows - rounded
    return SecondMoments(
        hessian=rounded.T @ rounded / len(rows),
        residual=error.T @ rounded / len(rows),
        residual_energy=error.square().mean(0),
        mean=rows.mean(0),
        mean_rounded=rounded.mean(0),
        tokens=len(rows),
    )


_OBSERVED = inputs_of(1).square().mean(0), moments_of(inputs_of(1))


def same_bits(found: Tensors, expected: Tensors) -> bool:
    pairs = [(gpu.to_cpu(found[name]), tensor) for name, tensor in expected.items()]
    return found.keys() == expected.keys() and all(
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
        for a, b in pairs
    )


def costs(record: Record) -> dict[str, Any]:
    return {
        "kernels": record.kernels.total(),
        "waits": record.waits.total(),
        "where": dict(record.waits),
        "float8": dict(record.float8),
        "bytes": record.peak - record.held,
    }


def encode(name: str, rounding: str, rows: int) -> dict[str, Any]:
    """Encode a weight of so many rows on both; the second time on the GPU counts."""
    weight, energy, moments = weight_of(rows), *_OBSERVED
    rule = get_rounding(rounding).for_input(energy, moments)
    expected = FORMATS[name].encode(weight, rule, measure_error=True)
    with gpu.running():
        on_gpu = gpu.to_gpu(weight)
        rule = get_rounding(rounding).for_input(energy, moments)
        if rows == ROWS_OF_CHUNK and rule.feedback is None:  # fills caches
            FORMATS[name].encode(on_gpu, rule)
        record = gpu.fresh_record()
        found = FORMATS[name].encode(on_gpu, rule, measure_error=True)
        result = costs(record)
        record = gpu.fresh_record()
        decoded = FORMATS[name].decode(found.tensors, (rows, WIDTH))
    error, other = found.relative_error or 0.0, expected.relative_error or 0.0
    return result | {
        "same": same_bits(found.tensors, expected.tensors),
        "same error": math.isclose(error, other, rel_tol=1e-5),
        "decodes": same_bits(
            {"": decoded}, {"": FORMATS[name].decode(expected.tensors, (rows, WIDTH))}
        ),
        "decoding waits": record.waits.total(),
        "on the GPU": all(t.device == GPU for t in found.tensors.values()),
    }


def encodings() -> dict[str, Any]:
    """Return the costs of each format and rounding, for one chunk and for several."""
    results = {}
    for name, fmt in FORMATS.items():
        if name in SAME_ARITHMETIC:
            continue
        roundings = ["max", "weighted"] if fmt.has_scale_choice and fmt.is_quantized else ["max"]
        for rounding in roundings:
            one, several = (encode(name, rounding, n * ROWS_OF_CHUNK) for n in (1, CHUNKS))
            results[f"{name} {rounding}"] = {"one": one, "several": several}
    return results


def feedbacks() -> dict[str, Any]:
    """Return the costs of error feedback. Its chunks are of rows, and larger."""
    kinds = [("nvfp4", "gptq"), ("nvfp4", "gptaq")]
    kinds += [(name, "gptq") for name in ("float8_e4m3fn", "mxfp8", "int8_rowwise")]
    return {
        f"{name} {rounding}": encode(name, rounding, ROWS_OF_CHUNK // 2) for name, rounding in kinds
    }


def emulations() -> dict[str, Any]:
    """Round activations in each format, with and without a static scale."""
    results = {}
    x = inputs_of(2)[: CHUNKS * ROWS_OF_CHUNK].bfloat16()
    for name, fmt in FORMATS.items():
        for scale in (None, 0.01):
            expected = fmt.emulate_activations(x, scale, x.dtype)
            with gpu.running():
                on_gpu = gpu.to_gpu(x)
                fmt.emulate_activations(on_gpu, scale, x.dtype)  # fills caches
                record = gpu.fresh_record()
                found = fmt.emulate_activations(on_gpu, scale, x.dtype)
            results[f"{name} {scale}"] = costs(record) | {
                "same": same_bits({"": found}, {"": expected})
            }
    return results


def model_of(tensors: Tensors, on_gpu: bool) -> torch.nn.Module:
    root = torch.nn.Module()
    for name in ("a", "b"):
        linear = torch.nn.Linear(WIDTH, ROWS_OF_CHUNK, bias=True)
        for part in ("weight", "bias"):
            value = tensors[f"{name}.{part}"].float()
            del linear._parameters[part]
            setattr(linear, part, gpu.to_gpu(value) if on_gpu else value)
        root.add_module(name, linear)
    return root


def calibrate(
    tensors: Tensors, source: SafetensorsFile, on_gpu: bool
) -> tuple[CalibrationStatistics, Record]:
    """Collect two runs with second moments; the record has the forwards only."""
    settings = CollectorSettings(200, moments_budget_bytes=2**28)
    collected = ActivationCollector(settings)
    root, total = model_of(tensors, on_gpu), Record()
    for run in range(2):
        collected.new_run(f"prompt {run}", run_id=f"{run:032x}")
        with collected.observe(root):
            for call in range(4):
                # inference tensors, as in ComfyUI; the second layer shares the first one's input
                x = inputs_of(10 * run + call)
                x = gpu.to_gpu(x) if on_gpu else x
                record = gpu.fresh_record()
                collected.begin_call(1.0 - call / 4, [1, 0])
                root.a(x)
                root.b(x)
                total.waits += record.waits
                total.kernels += record.kernels
    return collected.snapshot(source.fingerprint()), total


def calibrations(tensors: Tensors, source: SafetensorsFile) -> dict[str, Any]:
    expected, _ = calibrate(tensors, source, on_gpu=False)
    with gpu.running():
        found, record = calibrate(tensors, source, on_gpu=True)
    pairs = [(found.layers[name], layer) for name, layer in expected.layers.items()]
    return costs(record) | {
        "same": all(
            (a.call_amax == b.call_amax).all()
            and torch.equal(a.rows, b.rows)
            and a.moments is not None
            and b.moments is not None
            and torch.equal(a.moments.load().hessian, b.moments.load().hessian)
            for a, b in pairs
        )
    }


def choices(source: SafetensorsFile, statistics: CalibrationStatistics) -> dict[str, Any]:
    """Choose the encoding of a layer with a calibration: trials, the bias, and the max rule."""
    results = {}
    weight = source.load("a.weight")
    for name, roundings in CHOSEN.items():
        for rounding in roundings:
            fmt = get_format(name)
            observed = ObservedInputs(statistics).of("a")
            expected = choose_encoding(weight, fmt, rounding, observed, 0.01, correct_bias=True)
            observed = ObservedInputs(statistics).of("a")  # keeps factors on a device
            with gpu.running():
                on_gpu = gpu.to_gpu(weight)
                record = gpu.fresh_record()
                found = choose_encoding(on_gpu, fmt, rounding, observed, 0.01, correct_bias=True)
            results[f"{name} {rounding}"] = costs(record) | {
                "same": same_bits(found.encoded.tensors, expected.encoded.tensors),
                "reason": found.reason == expected.reason,
                "bias": (found.bias_shift is None) == (expected.bias_shift is None),
            }
    return results


def probes(
    tensors: Tensors, source: SafetensorsFile, statistics: CalibrationStatistics
) -> dict[str, Any]:
    """Measure both layers on their inputs, and what each moves in the output."""
    with gpu.running():
        measured = measure.measure_sensitivity(source, statistics, device="cuda")
    expected = measure.measure_sensitivity(source, statistics)
    (shift, waits), (other, _) = (
        _probed(tensors, source, expected, statistics, on_gpu) for on_gpu in (True, False)
    )
    return {
        "measured": _closeness(measured, expected),
        "shifts": _closeness(shift, other),
        "waits": waits,
    }


def _probed(
    tensors: Tensors,
    source: SafetensorsFile,
    sensitivity: Any,
    statistics: CalibrationStatistics,
    on_gpu: bool,
) -> tuple[Any, int]:
    """Return the shifts of a model call, and how often the host waited."""
    device = "cuda" if on_gpu else "cpu"
    with gpu.running():
        root, x = model_of(tensors, on_gpu), inputs_of(3)
        x = gpu.to_gpu(x) if on_gpu else x
        latent = probe.LatentProbe(source, sensitivity, statistics=statistics, device=device)

        def run() -> torch.Tensor:
            return root.a(x) + root.b(x)

        record = gpu.fresh_record()
        latent.probe(root, run, run(), 0.5)
        return latent.result(), record.waits.total()


def _closeness(found: Any, expected: Any) -> float:
    """Return the largest relative difference of two sensitivities."""
    worst = 0.0
    for name, layer in expected.layers.items():
        for fmt, errors in layer.candidates.items():
            other = found.layers[name].candidates[fmt]
            for kind in ("weight", "w4a16", "w4a4", "latent"):
                a, b = getattr(errors, kind), getattr(other, kind)
                assert (a is None) == (b is None), (name, fmt, kind)
                worst = max(worst, abs(a - b) / max(abs(a), 1e-9) if a is not None else 0.0)
    return worst


def banks() -> dict[str, Any]:
    """Encode and decode a bank of experts."""
    bank = torch.stack([weight_of(ROWS_OF_CHUNK, seed=seed) for seed in range(3)])
    fmt = for_shape(get_format("nvfp4_w4a16"), tuple(bank.shape))
    expected = fmt.encode(bank, get_rounding("mse"), measure_error=True)
    with gpu.running():
        on_gpu = gpu.to_gpu(bank)
        found = fmt.encode(on_gpu, get_rounding("mse"), measure_error=True)
        decoded = fmt.decode(found.tensors, tuple(bank.shape))
    return {
        "same": same_bits(found.tensors, expected.tensors),
        "decodes": same_bits({"": decoded}, {"": fmt.decode(expected.tensors, tuple(bank.shape))}),
        "on the GPU": decoded.device == GPU,
    }


def conversions(
    folder: Path, source: SafetensorsFile, statistics: CalibrationStatistics
) -> dict[str, bool]:
    """Convert the file on both; the results are the same bytes."""
    results = {}
    for rounding in ("max", "gptaq"):
        recipe = Recipe(rules=parse_rule_lines("a = nvfp4\nb = float8_e4m3fn"), rounding=rounding)
        plan = make_plan(recipe, take_inventory(source))
        written = {}
        for device in ("cpu", "cuda"):
            target = folder / f"{rounding}-{device}.safetensors"
            with gpu.running():
                convert(source, plan, target, statistics=statistics, device=device)
            written[device] = SafetensorsFile(target)
        names = written["cpu"].tensors
        results[rounding] = same_bits(
            {name: written["cuda"].load(name) for name in written["cuda"].tensors},
            {name: written["cpu"].load(name) for name in names},
        )
    return results


def shrink_chunks() -> None:
    """Make all chunks smaller by the same factor, as if a weight of so many chunks were large."""
    factor = base._GPU_CHUNK_ELEMENTS // CHUNK
    base._GPU_CHUNK_ELEMENTS //= factor
    codebook_rows._ROTATED_VALUES //= factor
    float8_scales._SAMPLE //= factor


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    shrink_chunks()
    # The pack observes plain tensors only; here they are of another class.
    collector.is_measurable = lambda x, width: x.shape[-1] == width
    emulation.is_rounded_natively = probed_layers.is_rounded_natively = lambda x: True
    probe.same_random_state = lambda device: nullcontext()  # a GPU's state needs a driver
    tensors = {}
    for seed, name in enumerate(("a", "b")):
        tensors[f"{name}.weight"] = weight_of(ROWS_OF_CHUNK, seed=seed)
        tensors[f"{name}.bias"] = torch.zeros(ROWS_OF_CHUNK)
    save_file(tensors, folder / "source.safetensors")
    source = SafetensorsFile(folder / "source.safetensors")
    with torch.no_grad():
        statistics, _ = calibrate(tensors, source, on_gpu=False)
        results = {
            "encodings": encodings(),
            "feedbacks": feedbacks(),
            "emulations": emulations(),
            "calibration": calibrations(tensors, source),
            "choices": choices(source, statistics),
            "probes": probes(tensors, source, statistics),
            "banks": banks(),
            "conversions": conversions(folder, source, statistics),
            "feedback memory": feedback_memory(gpu, folder),
        }
    (folder / "result.json").write_text(json.dumps(results, indent=1))


main(Path(sys.argv[1]))
