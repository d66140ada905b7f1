"""Compare mixes from a probe of all units with mixes from one that ends as soon as it may.

    python bench/probe_cost.py demo flux

For each model and way to probe: the model calls, how many of the units were measured in each
sampling, and the error of the mix at the size of the preset, on inputs that the probe has not seen.
With *sampled whole*, rival mixes are sampled too, as by *Probe Latent Shift* with a plan.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from fidelity_models import MIX_ROUNDING, Subject
from nvfp4_foundry.quant.derive import MIX_FORMATS, mix_plan
from nvfp4_foundry.quant.planning import Plan, take_inventory
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity
from nvfp4_foundry.quant.sensitivity.measure import QUANTIZED_FORMATS, measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probe import LatentProbe
from nvfp4_foundry.quant.sensitivity.probe_order import STOP_BELOW
from subjects import PRESETS, SETTINGS, SUBJECTS

FORMATS = [name for name in MIX_FORMATS if name in QUANTIZED_FORMATS]


@dataclass(frozen=True)
class Way:
    """A way to probe: all units of the model, or those of the plan that matter to its mix."""

    title: str
    as_needed: bool
    steps: int
    whole: bool


WAYS = (
    Way("all units, 4 steps", False, 4, False),
    Way("all units, 4 steps, sampled whole", False, 4, True),
    Way("as needed, 4 steps", True, 4, False),
    Way("as needed, 2 steps", True, 2, False),
    Way("as needed, 2 steps, sampled whole", True, 2, True),
)


def probed(
    subject: Subject, base: Plan, sensitivity: Sensitivity, way: Way
) -> tuple[Sensitivity, Sequence[int], int]:
    """Return what a probe found, the runs of each result, and the model calls of all."""
    probe = LatentProbe(
        subject.source,
        sensitivity,
        formats=FORMATS,
        statistics=subject.statistics,
        plan=base if way.as_needed else None,
        stop_below=STOP_BELOW if way.as_needed else None,
    )
    found = subject.probe(probe, base if way.whole else None, way.steps)
    calls = 2 * way.steps // len(probe.measured)
    mixes = len(found.whole) * len(probe.measured)
    return found, probe.measured, calls * (sum(probe.measured) + mixes)


def compare(name: str) -> None:
    """Print the lines of one model."""
    with SUBJECTS[name]() as subject:
        base = subject.plan(PRESETS[name], MIX_ROUNDING, **SETTINGS.get(name, {}))
        inventory = take_inventory(subject.source)
        own = subject.measure("preset", subject.quantize(base))
        print(f"| {name} | preset | | | {own.w4a4**0.5:.2%} | |", flush=True)
        sensitivity = measure_sensitivity(
            subject.source, subject.statistics, FORMATS, rounding=MIX_ROUNDING
        )
        errors: list[float] = []
        for way in WAYS:
            found, runs, calls = probed(subject, base, sensitivity, way)
            mix = mix_plan(base, inventory, found, formats=MIX_FORMATS, points=0)
            errors.append(subject.measure(way.title, subject.quantize(mix.plan)).w4a4 ** 0.5)
            print(
                f"| {name} | {way.title} | {', '.join(map(str, runs))} | {calls} | "
                f"{errors[-1]:.2%} | {errors[-1] / errors[0]:.3f} |",
                flush=True,
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Compare ways to probe by their mixes.")
    parser.add_argument("models", nargs="+", choices=sorted(PRESETS.keys() - {"encoder"}))
    print("| model | probe | units measured | model calls | W4A4 error | of the first |")
    print("|---|---|---|---|---|---|")
    for name in parser.parse_args().models:
        compare(name)


if __name__ == "__main__":
    main()
