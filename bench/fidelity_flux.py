"""The trained small Flux for the fidelity bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from fidelity_models import COLLECTING, Subject, run_id
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings
from nvfp4_foundry.quant.sensitivity.probe import SAMPLED
from nvfp4_foundry.quant.sources import open_source
from picture_patches import PICTURES, load_pictures, sample_prompts, to_images
from sample_tiny_flux import fit_judge, sample
from tiny_flux import MODEL_PATH, TinyFlux, load_model

_CALIBRATION_SEEDS = range(1, 7)
_PROBED_SEEDS = (1, 2)
_COMPARISON_SEED = 1000


@contextmanager
def flux_subject(
    samples: int, path: Path = MODEL_PATH, collecting: CollectorSettings = COLLECTING
) -> Iterator[Subject]:
    """Yield the small Flux. Its results are sampled patches, from noise that it has not seen.

    The calibration samples every picture in 20 steps from each of six seeds.
    """
    model = load_model(path)
    wanted, labels = sample_prompts(samples)
    each, _ = sample_prompts(len(PICTURES))
    collector = ActivationCollector(collecting)
    for seed in _CALIBRATION_SEEDS:
        collector.new_run(f"seed {seed}", run_id=run_id(seed))
        with collector.observe(model):
            sample(model, each, seed, on_step=collector.begin_call)
    judge = fit_judge(load_pictures())

    def run() -> torch.Tensor:
        return sample(model, wanted, _COMPARISON_SEED)

    with open_source(path) as source:
        yield Subject(
            model,
            source,
            collector.snapshot(source.fingerprint()),
            run,
            run(),
            lambda steps: [_short_sampling(model, seed, steps) for seed in _PROBED_SEEDS],
            lambda patches: judge.accuracy(to_images(patches), labels),
        )


def _short_sampling(
    model: TinyFlux, seed: int, steps: int
) -> tuple[float, Callable[[], torch.Tensor]]:
    """Return a function for a probe that samples each picture in few steps."""
    each, _ = sample_prompts(len(PICTURES))
    return SAMPLED, lambda: sample(model, each, seed, steps)
