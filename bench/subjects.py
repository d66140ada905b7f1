"""The models to measure on, by name, and a short table for one of them.

    python bench/subjects.py flux --preset all --rounding gptq gptaq

A `Subject` holds a calibrated model. Give it a plan, or options for one, and it returns the errors
with 16-bit and with rounded activations on inputs that the calibration has not seen:

    with SUBJECTS["flux"]() as subject:
        result = subject.measure("gptq", subject.quantize(subject.plan("all", "gptq")))
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from fidelity_encoder import encoder_subject
from fidelity_flux import flux_subject
from fidelity_layers import ROUNDINGS
from fidelity_models import ModelResult, Subject, demo_subject, qwen_subject

#: Each takes ``collecting``, the settings of the calibration.
SUBJECTS: dict[str, Callable[..., AbstractContextManager[Subject]]] = {
    "demo": partial(demo_subject, 100, 8.0),
    "demo-unshifted": partial(demo_subject, 100, 1.0),
    "qwen": qwen_subject,
    "encoder": encoder_subject,
    "flux": partial(flux_subject, 24),
}
#: The preset of mixed precision that suits each model. ComfyUI does not know the encoder.
PRESETS = {
    "demo": "wan2.2-14b",
    "demo-unshifted": "wan2.2-14b",
    "qwen": "qwen-image-2512",
    "encoder": "smart",
    "flux": "flux1",
}
#: Settings of these presets.
SETTINGS: dict[str, dict[str, int]] = {
    "demo": {"edge_blocks": 1},
    "demo-unshifted": {"edge_blocks": 1},
}


def main() -> None:
    """Print the errors of a model by each rounding, and their ratios to the first.

    *Typical* is the geometric mean over paired samples, with its standard error.
    """
    parser = argparse.ArgumentParser(description="Measure one model by some roundings.")
    parser.add_argument("model", choices=SUBJECTS)
    parser.add_argument("--preset", help="by default that of the model; all for all layers")
    parser.add_argument("--rounding", nargs="+", choices=ROUNDINGS, default=ROUNDINGS)
    options = parser.parse_args()
    preset = options.preset or PRESETS[options.model]
    base: ModelResult | None = None
    with SUBJECTS[options.model]() as subject:
        for rounding in options.rounding:
            result = subject.measure(rounding, subject.quantize(subject.plan(preset, rounding)))
            base = base or result
            weight_only, both = result.typical_ratios(base)
            print(
                f"{rounding:<10}W4A16 {result.w4a16**0.5:.2%} {result.w4a16 / base.w4a16:.3f}, "
                f"typical {weight_only[0]:.3f} ± {weight_only[1]:.3f}; "
                f"W4A4 {result.w4a4**0.5:.2%} {result.w4a4 / base.w4a4:.3f}, "
                f"typical {both[0]:.3f} ± {both[1]:.3f}",
                flush=True,
            )
        print(f"exact weights: W4A4 {subject.floor(preset) ** 0.5:.2%}")


if __name__ == "__main__":
    main()
