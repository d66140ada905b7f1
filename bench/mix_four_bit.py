"""Mixes of the demo model that set NVFP4 against ``asym_w4a8_int8`` at equal bytes.

    python bench/mix_four_bit.py --shift 8 --samples 100

Prints the size, the error of sampled latents and the share of 4-bit products: of a preset, of the
mix of NVFP4 and float8 at its size, and of mixes that may use ``asym_w4a8_int8`` too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from fidelity import EIGHT_BIT_INPUTS
from fidelity_models import MIX_ROUNDING, PROBED_STEPS, Subject, demo_subject
from nvfp4_foundry.quant.derive import MIX_FORMATS, Mix, mix_plan, with_four_bit
from nvfp4_foundry.quant.planning import Plan, take_inventory
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probe import LatentProbe

SHARES = (0.0, 0.25, 0.5, 0.7)


def probed(subject: Subject) -> Sensitivity:
    """Return the sensitivity of a model in the formats of all mixes."""
    formats = ("nvfp4", EIGHT_BIT_INPUTS, "float8_e4m3fn")
    measured = measure_sensitivity(
        subject.source, subject.statistics, formats, rounding=MIX_ROUNDING
    )
    probe = LatentProbe(subject.source, measured, formats=formats, statistics=subject.statistics)
    return subject.probe(probe, PROBED_STEPS)


def mixes(subject: Subject, base: Plan) -> Iterator[tuple[str, Mix]]:
    """Yield the mixes at the size of a plan, with their titles."""
    sensitivity, inventory = probed(subject), take_inventory(subject.source)
    yield "NVFP4 and float8", mix_plan(base, inventory, sensitivity, None, MIX_FORMATS, points=0)
    for share in SHARES:
        budget = with_four_bit(None, base.bytes_after, share)
        formats = (*MIX_FORMATS, EIGHT_BIT_INPUTS)
        mix = mix_plan(base, inventory, sensitivity, budget, formats, points=0)
        yield f"at least {share:.0%} in 4-bit products", mix


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Compare mixes with and without 8-bit products.")
    parser.add_argument("--shift", type=float, default=8.0, help="the shift of the schedule")
    parser.add_argument("--samples", type=int, default=100, help="sampled digits")
    options = parser.parse_args()
    with demo_subject(options.samples, options.shift) as subject:
        base = subject.plan("wan2.2-14b", MIX_ROUNDING, edge_blocks=1)
        print("| mix | MB | W4A4 error | predicted | 4-bit products | layers |")
        print("|---|---|---|---|---|---|")
        own = subject.measure("preset", subject.quantize(base))
        print(f"| preset | {own.megabytes:.2f} | {own.w4a4**0.5:.2%} | | | |", flush=True)
        for title, mix in mixes(subject, base):
            found = subject.measure(title, subject.quantize(mix.plan))
            counts = ", ".join(f"{count} `{name}`" for name, count in mix.point.counts.items())
            print(
                f"| {title} | {found.megabytes:.2f} | {found.w4a4**0.5:.2%} | "
                f"{mix.point.error:.2%} | {mix.point.four_bit:.1%} | {counts} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
