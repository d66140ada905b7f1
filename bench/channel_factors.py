"""What factors per channel (``nvfp4_smooth``) gain, on single layers and on whole models.

    python bench/channel_factors.py layers
    python bench/channel_factors.py encoder

All errors are squared, on inputs that the calibration has not seen, as ratios to ``nvfp4`` by the
max rule.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator

import torch
from fidelity import SYNTHETIC, WAN
from fidelity_layers import LayerCase, PromptInputs, calibrate, draw_weight
from nvfp4_foundry.quant.conversion.encode_weight import encode_weight
from nvfp4_foundry.quant.conversion.observed_input import ObservedInputs
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.nvfp4 import PRE_QUANT_SCALE
from nvfp4_foundry.quant.hardware.emulation import InputRounding
from subjects import SUBJECTS

_TRIED = (
    ("nvfp4", "max"), ("nvfp4", "gptq"), ("nvfp4", "gptaq"), ("nvfp4_smooth", "max"),
    ("nvfp4_smooth", "gptq"), ("nvfp4_smooth", "gptaq"),
)  # fmt: skip
_SYNTHETIC_SEEDS = 3


def layer_errors(case: LayerCase, seed: int) -> Iterator[tuple[float, float, bool]]:
    """Yield the W4A16 and W4A4 error of each format and rounding, and whether factors are kept."""
    weight, inputs = draw_weight(case, seed), PromptInputs(case, seed)
    observed = ObservedInputs(calibrate(inputs, case, 8 * case.in_features)).of("layer")
    held_out = [inputs.draw(prompt, 512) for prompt in range(100, 104)]
    wanted = torch.cat([x @ weight.T for x in held_out])
    for name, rounding in _TRIED:
        fmt = get_format(name)
        chosen = encode_weight(weight, fmt, rounding, observed, None)
        values = fmt.decode(chosen.encoded.tensors, (weight.shape[0], weight.shape[1])).T
        factors = chosen.encoded.tensors.get(PRE_QUANT_SCALE)
        seen = [InputRounding(fmt, None, factors).apply(x) for x in held_out]
        weight_only, both = (
            float((torch.cat([x @ values for x in some]) - wanted).square().sum())
            for some in (held_out, seen)
        )
        yield weight_only, both, "with factors" in chosen.reason


def print_layers() -> None:
    """Print a Markdown table of synthetic layers and of layers like those of WAN 2.2."""
    print("| layer | format | rounding | with factors | W4A16 | W4A4 |\n|---|---|---|---|---|---|")
    for case in (*SYNTHETIC, *WAN):
        seeds = _SYNTHETIC_SEEDS if case in SYNTHETIC else 1
        runs = [list(layer_errors(case, seed)) for seed in range(seeds)]
        for number, (name, rounding) in enumerate(_TRIED):
            kept = sum(run[number][2] for run in runs)
            ratios = (
                statistics.median(run[number][kind] / run[0][kind] for run in runs)
                for kind in (0, 1)
            )
            numbers = " | ".join(f"{ratio:.3f}" for ratio in ratios)
            print(
                f"| {case.title} | `{name}` | `{rounding}` | {kept} of {seeds} | {numbers} |",
                flush=True,
            )


def print_model(name: str) -> None:
    """Print a Markdown table of one model with all layers of its blocks in a format."""
    print("| format | rounding | with factors | W4A16 | W4A4 | median sample |")
    print("|---|---|---|---|---|---|")
    base = None
    with SUBJECTS[name]() as subject:
        for fmt, rounding in _TRIED:
            model = subject.quantize(subject.plan("all", rounding, format=fmt))
            result = subject.measure(fmt, model)
            base = base or result
            kept = sum("with factors" in layer.rounding_reason for layer in model.report.layers)
            median = float(result.by_sample[1].median() / base.by_sample[1].median())
            count = sum(model.report.roundings().values())
            print(
                f"| `{fmt}` | `{rounding}` | {kept} of {count} | {result.w4a16 / base.w4a16:.3f} | "
                f"{result.w4a4 / base.w4a4:.3f} | {median:.3f} |",
                flush=True,
            )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description="Measure what factors per channel gain.")
    parser.add_argument("what", choices=("layers", *SUBJECTS))
    what = parser.parse_args().what
    print_layers() if what == "layers" else print_model(what)


if __name__ == "__main__":
    main()
