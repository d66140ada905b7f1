"""Small models and an independent recorder of the inputs of their Linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    LayerStatistics,
)
from nvfp4_foundry.quant.fingerprint import ModelFingerprint

from tests.helpers.moments_by_hand import Observed

Inputs = dict[str, list[torch.Tensor]]


class TinyBlock(torch.nn.Module):
    """q, k and v share one input tensor; the other layers have their own inputs."""

    def __init__(self, width: int = 16, ffn: int = 40) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (torch.nn.Linear(width, width) for _ in range(4))
        self.ffn = torch.nn.Sequential(
            torch.nn.Linear(width, ffn), torch.nn.GELU(), torch.nn.Linear(ffn, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 1.5
        x = x + self.o(self.q(y) * self.k(y) + self.v(y))
        return x + self.ffn(x * 0.5)


@contextmanager
def _recording(root: torch.nn.Module) -> Iterator[Inputs]:
    seen: Inputs = {}
    handles = []
    for name, module in root.named_modules():
        if isinstance(module, torch.nn.Linear):
            store = seen.setdefault(name, [])
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, a, s=store: s.append(a[0].detach().clone())
                )
            )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _check_layer(layer: LayerStatistics, inputs: list[torch.Tensor]) -> None:
    """Compare one layer with plain float64 arithmetic over all its recorded inputs."""
    rows = torch.cat([x.reshape(-1, x.shape[-1]) for x in inputs])
    exact = rows.double()
    assert layer.calls == len(inputs)
    assert layer.tokens == len(rows)
    assert layer.amax == np.float32(exact.abs().max())
    np.testing.assert_array_equal(layer.channel_amax, exact.abs().amax(0).float().numpy())
    if layer.tokens_used == layer.tokens:
        np.testing.assert_allclose(layer.sum_squares, (exact**2).sum(0).numpy(), rtol=2e-6)
        np.testing.assert_allclose(layer.mean_square, (exact**2).mean(0).numpy(), rtol=2e-6)
    assert layer.rows.dtype in {x.dtype for x in inputs}
    assert len(layer.rows) == len(layer.priorities)
    assert (np.diff(layer.priorities) > 0).all()
    known = {row.numpy().tobytes() for row in exact}
    assert all(row.numpy().tobytes() in known for row in layer.rows.double())


@pytest.fixture
def tiny_block() -> Callable[..., TinyBlock]:
    return TinyBlock


@pytest.fixture
def recording() -> Callable[..., object]:
    return _recording


@pytest.fixture
def check_layer() -> Callable[[LayerStatistics, list[torch.Tensor]], None]:
    return _check_layer


@pytest.fixture
def fingerprint() -> ModelFingerprint:
    return ModelFingerprint(shapes={"q": (16, 16), "o": (16, 16)}, probe={"q.bias": (0.5, 1.0)})


@pytest.fixture
def sample_statistics(fingerprint: ModelFingerprint) -> Callable[..., CalibrationStatistics]:
    """Make a calibration of one run over a tiny block."""

    def make(seed: int = 0, calls: int = 3, rows: int = 8, tokens: int = 6, **settings: int):
        generator = torch.Generator().manual_seed(seed)
        collector = ActivationCollector(CollectorSettings(rows, **settings))
        collector.new_run(f"prompt {seed}", {"steps": calls})
        torch.manual_seed(0)
        block = TinyBlock()
        with torch.no_grad(), collector.observe(block):
            for step in range(calls):
                collector.begin_call(1.0 - step / calls, [1, 0])
                block(torch.randn(2, tokens, 16, generator=generator))
        return collector.snapshot(fingerprint)

    return make


@pytest.fixture
def observe(
    tiny_block: Callable, recording: Callable, fingerprint: ModelFingerprint
) -> Callable[..., Observed]:
    """Observe runs of a tiny block: q, k, v share one input of width 16, ffn.2 has one of 40."""

    def run(
        runs: int, collector: ActivationCollector, same: bool = False, seed: int = 0
    ) -> Observed:
        torch.manual_seed(seed)
        block = tiny_block()
        with recording(block) as seen, torch.no_grad():
            for number in range(runs):
                collector.new_run(f"prompt {number}")
                fixed = torch.randn(2, 30, 16)
                with collector.observe(block):
                    for step in range(4):
                        collector.begin_call(1.0 - step / 4, [0, 1])
                        block(fixed if same else torch.randn(2, 30, 16))
        return collector.snapshot(fingerprint), seen

    return run
