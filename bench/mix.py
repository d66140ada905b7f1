"""Whether predicted errors of mixes come true: the tiny WAN, probed by layers, blocks, not at all.

    python bench/mix.py

Prints, for the preset's own size and for bits per weight, the predicted error of each mix and the
measured shift of the denoised latents, 4-bit activations emulated, on noise the probe has not seen.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from nvfp4_foundry.demo.digits import DigitsTask, load_task
from nvfp4_foundry.demo.model import MODEL_PATH, TinyWan, load_model
from nvfp4_foundry.demo.quantized import load_quantized
from nvfp4_foundry.demo.sampling import TIMESTEPS, guided, initial_noise, sample, simple_sigmas
from nvfp4_foundry.quant.calibration import ActivationCollector, CalibrationStatistics
from nvfp4_foundry.quant.convert import convert
from nvfp4_foundry.quant.measure_sensitivity import measure_sensitivity
from nvfp4_foundry.quant.planning import (
    Plan,
    get_preset,
    make_plan,
    mix_plan,
    parse_budget,
    take_inventory,
)
from nvfp4_foundry.quant.probe import LatentProbe
from nvfp4_foundry.quant.sources import TensorSource, open_source

DIGITS = tuple(range(10))
STEPS, PROBED_STEPS, CFG = 8, (0, 2, 4, 7), 2.0
CALIBRATION_SEEDS, PROBE_SEED, TEST_SEED = (1, 2, 3), 77, 78
BUDGETS = (None, "bits=5.5", "bits=6.5")

#: Sigma, latents of both branches, denoised latents.
State = tuple[float, torch.Tensor, torch.Tensor]


class Experiment:
    """The model, its calibration, and the states at which it is probed and tested."""

    def __init__(self, source: TensorSource, folder: Path):
        self.source, self.folder = source, folder
        self.model: TinyWan = load_model()
        self.task: DigitsTask = load_task()
        positive = self.task.contexts(DIGITS).float()
        self.context = torch.cat([positive, self.task.empty_context.float().expand_as(positive)])
        self.statistics = self._calibrate()
        self.tests = list(self.states(TEST_SEED))

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
        """Sample with the exact model and return the probed steps."""
        x = initial_noise(len(DIGITS), seed)
        for step, (sigma, following) in enumerate(pairwise(simple_sigmas(STEPS).tolist())):
            both = x.repeat(2, 1, 1, 1, 1)
            denoised = self.denoised(self.model, sigma, both)
            if step in PROBED_STEPS:
                yield sigma, both, denoised
            velocity = (both - denoised) / sigma
            x = x + (following - sigma) * guided(velocity, [0, 1], CFG)

    def probe(self, probe: LatentProbe) -> LatentProbe:
        """Run a probe at the probed steps."""
        for sigma, x, denoised in self.states(PROBE_SEED):
            # both names are bound now: the probe is done before the next step
            probe.probe(
                self.model, lambda s=sigma, y=x: self.denoised(self.model, s, y), denoised, sigma
            )
        return probe

    def measured(self, plan: Plan) -> float:
        """Return the shift of the denoised latents with the model quantized as planned."""
        path = self.folder / "mix.safetensors"
        convert(self.source, plan, path, statistics=self.statistics, overwrite=True)
        model = load_quantized(path, round_activations=True)
        squares = [
            float((self.denoised(model, sigma, x) - exact).norm() / exact.norm()) ** 2
            for sigma, x, exact in self.tests
        ]
        return math.sqrt(sum(squares) / len(squares))


@torch.no_grad()
def main() -> None:
    """Measure and print a table."""
    torch.set_num_threads(1)
    with open_source(MODEL_PATH) as source, tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(source, Path(folder))
        statistics = experiment.statistics
        outputs = measure_sensitivity(source, statistics)
        inputs = LatentProbe(source, outputs, statistics=statistics)
        layers = LatentProbe(source, outputs, statistics=statistics, unit="layer")
        blocks = LatentProbe(source, outputs, statistics=statistics, unit="block")
        inventory = take_inventory(source)
        base = make_plan(get_preset("wan2.2-14b").build({"edge_blocks": 1}), inventory)
        print(f"{'preset':<12}{'own size':<10}{'':>19}{experiment.measured(base):>10.2%} measured")
        for name, sensitivity in (
            ("each input", experiment.probe(inputs).result()),
            ("each layer", experiment.probe(layers).result()),
            ("each block", experiment.probe(blocks).result()),
            ("not at all", outputs),
        ):
            for text in BUDGETS:
                budget = parse_budget(text) if text else None
                mix = mix_plan(base, inventory, sensitivity, budget, points=0)
                print(
                    f"{name:<12}{text or 'own size':<10}{mix.point.error:>9.2%} predicted"
                    f"{experiment.measured(mix.plan):>10.2%} measured"
                )


if __name__ == "__main__":
    main()
