"""Compare mixes from a probe of all units with mixes from one that ends as soon as it may.

    python bench/probe_cost.py demo flux

For each model and way to probe: how many units were measured in each sampling, the model calls, and
the error of the mix at the size of the preset, on inputs that the probe has not seen. The last
three columns are after rival mixes were sampled whole, as by *Probe Latent Shift* with a plan.
"""

from __future__ import annotations

import argparse
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


WAYS = (
    Way("all units, 4 steps", False, 4),
    Way("as needed, 4 steps", True, 4),
    Way("as needed, 3 steps", True, 3),
    Way("as needed, 2 steps", True, 2),
)


def new_probe(subject: Subject, base: Plan, sensitivity: Sensitivity, way: Way) -> LatentProbe:
    """Return a probe for a way."""
    return LatentProbe(
        subject.source,
        sensitivity,
        formats=FORMATS,
        statistics=subject.statistics,
        plan=base if way.as_needed else None,
        stop_below=STOP_BELOW if way.as_needed else None,
    )


def compare(name: str) -> None:
    """Print the lines of one model."""
    with SUBJECTS[name]() as subject:
        base = subject.plan(PRESETS[name], MIX_ROUNDING, **SETTINGS.get(name, {}))
        inventory = take_inventory(subject.source)

        def error(plan: Plan) -> float:
            return subject.measure("", subject.quantize(plan)).w4a4 ** 0.5

        print(f"| {name} | preset | | | {error(base):.2%} | | | | |", flush=True)
        sensitivity = measure_sensitivity(
            subject.source, subject.statistics, FORMATS, rounding=MIX_ROUNDING
        )
        first: list[float] = []
        for way in WAYS:
            probe = new_probe(subject, base, sensitivity, way)
            found, cells, errors = subject.probe(probe, way.steps), "", []
            results = len(probe.measured)
            for whole in (False, True):
                if whole:
                    found = subject.sample_rivals(probe, base, way.steps)
                mix = mix_plan(base, inventory, found, formats=MIX_FORMATS, points=0)
                errors.append(error(mix.plan))
                calls = (
                    2 * way.steps // results * (sum(probe.measured) + results * len(found.whole))
                )
                ratio = errors[-1] / (first or errors)[len(errors) - 1]
                cells += f" {calls} | {errors[-1]:.2%} | {ratio:.3f} |"
            first = first or errors
            print(
                f"| {name} | {way.title} | {', '.join(map(str, probe.measured))} |{cells}",
                flush=True,
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Compare ways to probe by their mixes.")
    parser.add_argument("models", nargs="+", choices=sorted(PRESETS.keys() - {"encoder"}))
    print(
        "| model | probe | units measured | model calls | W4A4 error | of the first | "
        "with rivals: model calls | W4A4 error | of the first |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in parser.parse_args().models:
        compare(name)


if __name__ == "__main__":
    main()
