"""A calibration of made-up inputs, for reports of models that are too large to run."""

from __future__ import annotations

import numpy as np
import torch
from nvfp4_foundry.quant.calibration import CalibrationStatistics, LayerStatistics, RunRecord
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.planning import Inventory

RUNS, STEPS = 2, 20
_SHARED = {"to_k": "to_q", "to_v": "to_q", "k": "q", "v": "q"}


def made_up_calibration(inventory: Inventory, seed: int = 0) -> CalibrationStatistics:
    """Return two runs of 20 steps with both CFG branches over every Linear layer."""
    rng = np.random.default_rng(seed)
    shapes = {la.name: la.shape for la in inventory.of_kind("linear")}
    layers: dict[str, LayerStatistics] = {}
    for name, shape in shapes.items():
        parent, _, leaf = name.rpartition(".")
        shared = layers.get(f"{parent}.{_SHARED.get(leaf, '')}")
        alike = shared is not None and shared.in_features == shape[1]
        layers[name] = shared if alike and shared else observed_input(name, shape[1], rng)
    runs = tuple(
        RunRecord(f"{n:032x}", f"2026-01-0{n + 1}T00:00:00", (f"prompt {n}",), 2 * STEPS, {})
        for n in range(RUNS)
    )
    return CalibrationStatistics(layers, ModelFingerprint(shapes, {}), runs, 4, ("made up",))


def observed_input(name: str, width: int, rng: np.random.Generator) -> LayerStatistics:
    """Return an input whose amax falls with sigma and differs between runs and branches."""
    sigma = np.tile(np.linspace(1.0, 0.02, STEPS, dtype=np.float32), 2 * RUNS)
    branch = np.tile(np.repeat(np.array([0, 1], np.int8), STEPS), RUNS)
    run = np.repeat(np.arange(RUNS, dtype=np.int32), 2 * STEPS)
    peak = np.exp(rng.normal(2, 1)) * (1 + run)
    amax = peak * (0.5 + sigma) * (1 + 0.1 * branch) * rng.uniform(0.9, 1.1, sigma.size)
    return LayerStatistics(
        input_id=name,
        in_features=width,
        calls=len(sigma),
        tokens=100 * len(sigma),
        tokens_used=100 * len(sigma),
        sigma=sigma,
        branch=branch,
        call_amax=amax.astype(np.float32),
        run=run,
        sum_squares=np.ones(width),
        channel_amax=np.ones(width, np.float32),
        rows=torch.zeros(0, width),
        priorities=np.zeros(0),
        row_limit=np.inf,
        row_run=np.zeros(0, np.int32),
    )
