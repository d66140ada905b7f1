"""Inputs of low rank or of none, and what a calibration with held-out runs knows of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings
from nvfp4_foundry.quant.conversion.observed_input import ObservedInput, ObservedInputs
from nvfp4_foundry.quant.fingerprint import ModelFingerprint

WIDTH = 64
#: The channels that `loud` makes loud.
LOUD = torch.tensor([3, 20, 41])
Draw = Callable[[int], torch.Tensor]


def low_rank(rank: int = 8, offset: float = 0.0) -> Draw:
    """Return inputs in few directions, so that channels can compensate for each other."""
    mixing = torch.randn(rank, WIDTH, generator=torch.Generator().manual_seed(0))

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(400, rank, generator=generator) @ mixing + offset

    return draw


def loud(rank: int = 24) -> Draw:
    """Return inputs in few directions, with one loud channel in each of three blocks."""
    draw = low_rank(rank)
    scale = torch.ones(WIDTH).index_fill(0, LOUD, 25.0)
    return lambda seed: draw(seed) * scale


def white(seed: int) -> torch.Tensor:
    return torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(seed))


def observe(draw: Draw, runs: int = 2, rows: int = 200, **settings: int) -> ObservedInput:
    """Collect four calls per run; the second run is held out."""
    collector = ActivationCollector(
        CollectorSettings(rows, **{"moments_budget_bytes": 2**28, **settings})
    )
    root = torch.nn.Sequential(torch.nn.Linear(WIDTH, 16))
    with torch.no_grad():
        for run in range(runs):
            collector.new_run(f"prompt {run}", run_id=f"{run:032x}")
            with collector.observe(root):
                for call in range(4):
                    collector.begin_call(1.0 - call / 4)
                    root(draw(10 * run + call))
    statistics = collector.snapshot(ModelFingerprint({}, {}))
    observed = ObservedInputs(statistics).of("0")
    assert observed is not None
    return observed


def weight_of(rows: int = 48) -> torch.Tensor:
    return 0.1 * torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(1))


class Toy(torch.nn.Module):
    """Two blocks of two Linear layers. The first gets inputs of low rank with a large mean."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            torch.nn.ModuleDict(
                {"a": torch.nn.Linear(WIDTH, WIDTH), "b": torch.nn.Linear(WIDTH, WIDTH)}
            )
            for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            assert isinstance(block, torch.nn.ModuleDict)
            block["b"](torch.nn.functional.gelu(block["a"](x)))
        return x
