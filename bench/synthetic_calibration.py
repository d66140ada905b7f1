"""Write a calibration of made-up inputs for a model file, for measurements without sampling.

Every input has channels of lognormal energy and a few sampled rows, but no second moments, so it
serves ``weighted`` and the reported output errors. Run
``python bench/synthetic_calibration.py wan.safetensors wan_calibration.safetensors``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from nvfp4_foundry.quant.calibration import CalibrationStatistics, LayerStatistics, RunRecord
from nvfp4_foundry.quant.calibration.storage import save_statistics
from nvfp4_foundry.quant.planning import take_inventory
from nvfp4_foundry.quant.sources import open_source

CALLS, TOKENS, ROWS = 40, 4096, 128
# Layers that read the same input, as q, k and v of self-attention do.
_FIRST = {
    "self_attn.k": "self_attn.q",
    "self_attn.v": "self_attn.q",
    "cross_attn.v": "cross_attn.k",
}


def write_calibration(model: Path, path: Path, seed: int = 0) -> None:
    """Write the calibration of all Linear layers of a model file."""
    source = open_source(model)
    shapes = {la.name: la.shape for la in take_inventory(source).of_kind("linear")}
    generator = np.random.default_rng(seed)
    inputs: dict[str, LayerStatistics] = {}
    layers: dict[str, LayerStatistics] = {}
    for name, (_, width) in shapes.items():
        first = next(
            (name.removesuffix(k) + v for k, v in _FIRST.items() if name.endswith(k)), name
        )
        if first not in inputs:
            inputs[first] = _input(first, width, generator)
        layers[name] = inputs[first]
    run = RunRecord("0" * 32, "2026-01-01T00:00:00", ("made up",), CALLS, {})
    save_statistics(
        CalibrationStatistics(layers, source.fingerprint(), (run,), CALLS, ("made up",)), path
    )


def _input(name: str, width: int, generator: np.random.Generator) -> LayerStatistics:
    energy = np.exp(generator.normal(0, 1.5, width))
    rows = generator.normal(size=(ROWS, width)) * np.sqrt(energy)
    amax = float(np.abs(rows).max())
    used = CALLS * TOKENS
    return LayerStatistics(
        input_id=name,
        in_features=width,
        calls=CALLS,
        tokens=used,
        tokens_used=used,
        sigma=np.linspace(1.0, 0.02, CALLS, dtype=np.float32),
        branch=np.zeros(CALLS, np.int8),
        call_amax=np.full(CALLS, amax, np.float32),
        run=np.zeros(CALLS, np.int32),
        sum_squares=energy * used,
        channel_amax=np.abs(rows).max(0).astype(np.float32),
        rows=torch.from_numpy(rows).bfloat16(),
        priorities=np.sort(generator.uniform(size=ROWS)),
        row_limit=1.0,
        row_run=np.zeros(ROWS, np.int32),
    )


def main() -> int:
    """Write one calibration file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="the model's file")
    parser.add_argument("path", type=Path, help="the calibration to write")
    options = parser.parse_args()
    write_calibration(options.model, options.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
