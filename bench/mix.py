"""Compare predicted and measured errors of mixes for the tiny WAN, with and without probes.

    python bench/mix.py

Prints the predicted and the measured error of each mix, at the preset's own size and at a number of
bits per weight. Measured errors are of sampled latents with emulated 4-bit activations, on noise
that the probe has not seen.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from nvfp4_foundry.demo.digits import DigitsTask, load_task
from nvfp4_foundry.demo.model import MODEL_PATH, TinyWan, load_model
from nvfp4_foundry.demo.quantized import load_quantized
from nvfp4_foundry.demo.sampling import TIMESTEPS, guided, initial_noise, sample, simple_sigmas
from nvfp4_foundry.quant.calibration import ActivationCollector, CalibrationStatistics
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.derive import mix_plan, parse_budget
from nvfp4_foundry.quant.planning import Plan, get_preset, make_plan, take_inventory
from nvfp4_foundry.quant.sensitivity.measure import measure_sensitivity
from nvfp4_foundry.quant.sensitivity.probe import SAMPLED, LatentProbe, ProbeUnit
from nvfp4_foundry.quant.sources import TensorSource, open_source

DIGITS = tuple(range(10))
STEPS, SHORT_STEPS, PROBED_STEPS, CFG = 20, 4, (3, 10, 16), 2.0
CALIBRATION_SEEDS, PROBE_SEED, TEST_SEEDS = (1, 2, 3), 77, (78, 79, 80, 81)
FORMATS = ("nvfp4", "float8_e4m3fn")
BUDGETS = (None, "bits=5.5")

#: Sigma, latents of both branches, denoised latents.
State = tuple[float, torch.Tensor, torch.Tensor]


class Experiment:
    """The model, its calibration, the probes, and the samplings to test with."""

    def __init__(self, source: TensorSource, folder: Path):
        self.source, self.folder = source, folder
        self.model: TinyWan = load_model()
        self.task: DigitsTask = load_task()
        positive = self.task.contexts(DIGITS).float()
        self.context = torch.cat([positive, self.task.empty_context.float().expand_as(positive)])
        self.statistics = self._calibrate()
        self.tests = [self.sampled(self.model, seed) for seed in TEST_SEEDS]

    def sampled(self, model: TinyWan, seed: int, steps: int = STEPS) -> torch.Tensor:
        """Return sampled latents, one of each digit."""
        return sample(model, DIGITS, seed, steps, CFG, task=self.task)

    def _calibrate(self) -> CalibrationStatistics:
        collector = ActivationCollector()
        for seed in CALIBRATION_SEEDS:
            collector.new_run(f"seed {seed}")
            with collector.observe(self.model):
                sample(self.model, DIGITS, seed, STEPS, CFG, collector.begin_call, self.task)
        return collector.snapshot(self.source.fingerprint())

    def denoised(self, model: TinyWan, sigma: float, x: torch.Tensor) -> torch.Tensor:
        """Return the denoised latents of both branches."""
        return x - sigma * model(x, torch.full((len(x),), sigma * TIMESTEPS), self.context)

    def states(self, seed: int) -> Iterator[State]:
        """Sample with the exact model, and yield the steps to probe."""
        x = initial_noise(len(DIGITS), seed)
        for step, (sigma, following) in enumerate(pairwise(simple_sigmas(STEPS).tolist())):
            both = x.repeat(2, 1, 1, 1, 1)
            denoised = self.denoised(self.model, sigma, both)
            if step in PROBED_STEPS:
                yield sigma, both, denoised
            velocity = (both - denoised) / sigma
            x = x + (following - sigma) * guided(velocity, [0, 1], CFG)

    def probe_calls(self, probe: LatentProbe) -> LatentProbe:
        """Run a probe on single calls of a sampling."""
        for sigma, x, denoised in self.states(PROBE_SEED):
            # bind both names now, because the loop changes them
            probe.probe(
                self.model, lambda s=sigma, y=x: self.denoised(self.model, s, y), denoised, sigma
            )
        return probe

    def probe_sampling(self, probe: LatentProbe) -> LatentProbe:
        """Run a probe on one short sampling."""

        def short() -> torch.Tensor:
            return self.sampled(self.model, PROBE_SEED, SHORT_STEPS)

        probe.probe(self.model, short, short(), SAMPLED)
        return probe

    def measured(self, plan: Plan) -> float:
        """Return the error of latents that are sampled with the quantized model."""
        path = self.folder / "mix.safetensors"
        convert(self.source, plan, path, statistics=self.statistics, overwrite=True)
        model = load_quantized(path, round_activations=True)
        pairs = zip(TEST_SEEDS, self.tests, strict=True)
        squares = [
            float((self.sampled(model, seed) - exact).norm() / exact.norm()) ** 2
            for seed, exact in pairs
        ]
        return math.sqrt(sum(squares) / len(squares))


@torch.no_grad()
def main() -> None:
    """Measure and print a table."""
    torch.set_num_threads(1)
    with open_source(MODEL_PATH) as source, tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(source, Path(folder))
        statistics = experiment.statistics
        outputs = measure_sensitivity(source, statistics, FORMATS)

        def new(formats: Sequence[str] = FORMATS, unit: ProbeUnit = "input") -> LatentProbe:
            return LatentProbe(source, outputs, formats=formats, unit=unit, statistics=statistics)

        inventory = take_inventory(source)
        base = make_plan(get_preset("wan2.2-14b").build({"edge_blocks": 1}), inventory)
        print(f"{'preset':<32}{'own size':<10}{'':>19}{experiment.measured(base):>10.2%} measured")
        for name, sensitivity in (
            ("short sampling", experiment.probe_sampling(new()).result()),
            ("short sampling, NVFP4 alone", experiment.probe_sampling(new(("nvfp4",))).result()),
            ("short sampling, layers", experiment.probe_sampling(new(unit="layer")).result()),
            ("short sampling, blocks", experiment.probe_sampling(new(unit="block")).result()),
            ("single calls", experiment.probe_calls(new()).result()),
            ("single calls, NVFP4 alone", experiment.probe_calls(new(("nvfp4",))).result()),
            ("not at all", outputs),
        ):
            for text in BUDGETS:
                budget = parse_budget(text) if text else None
                mix = mix_plan(base, inventory, sensitivity, budget, points=0)
                print(
                    f"{name:<32}{text or 'own size':<10}{mix.point.error:>9.2%} predicted"
                    f"{experiment.measured(mix.plan):>10.2%} measured"
                )


if __name__ == "__main__":
    main()
