"""Runs that are collected apart add up to what one collector gathers; broken ones stay aside."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import (
    ActivationCollector,
    CalibrationStatistics,
    CollectorSettings,
    RunAccumulator,
    RunRecord,
    load_statistics,
    save_statistics,
)
from nvfp4_foundry.quant.calibration.moment_accumulator import moments_bytes
from nvfp4_foundry.quant.fingerprint import ModelFingerprint

from tests.helpers.moments_by_hand import BIG

RUNS = 6
EXACT = ("calls", "tokens", "tokens_used", "row_limit", "in_features", "input_id")
ARRAYS = ("sigma", "branch", "call_amax", "run", "channel_amax", "priorities", "row_run")


class Cancelled(BaseException):
    """Like ComfyUI's interruption, this is not an `Exception`."""


def sample(block: torch.nn.Module, collector: ActivationCollector, seed: int) -> None:
    """Call a model in four steps, both guidance branches in one call."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for step in range(4):
            collector.begin_call(1.0 - step / 4, [1, 0])
            block(torch.randn(2, 30, 16, generator=generator))


@pytest.mark.parametrize(
    "settings",
    [
        CollectorSettings(20, moments_budget_bytes=BIG, moments_tokens_per_channel=90),
        CollectorSettings(rows_per_layer=256, memory_budget_bytes=20_000),
        # room for the Hessian of one input of width 16 at a time
        CollectorSettings(8, moments_budget_bytes=moments_bytes(16), moments_tokens_per_channel=30),
        CollectorSettings(8, moments_budget_bytes=moments_bytes(40), mean_square_tokens=7),
    ],
    ids=["all", "few rows", "one Hessian", "wide"],
)
def test_runs_apart_are_runs_together(
    tiny_block: Callable, fingerprint: ModelFingerprint, settings: CollectorSettings
) -> None:
    block, ids = tiny_block(), [uuid.UUID(int=n).hex for n in range(1, RUNS + 1)]
    together, apart = ActivationCollector(settings), RunAccumulator(settings, fingerprint)
    for seed, run_id in enumerate(ids):
        together.new_run(f"prompt {seed}", {"steps": 4}, run_id)
        with together.observe(block):
            sample(block, together, seed)
        with apart.observe(block, [f"prompt {seed}"], {"steps": 4}, run_id=run_id) as collector:
            sample(block, collector, seed)
    one, other = together.snapshot(fingerprint), apart.statistics()
    assert [r.id for r in one.runs] == [r.id for r in other.runs] == ids
    assert one.rows_per_layer == other.rows_per_layer
    assert one.layers.keys() == other.layers.keys() and len(one.inputs) == len(other.inputs) == 4
    for name, wanted in one.layers.items():
        found = other.layers[name]
        assert [getattr(found, n) for n in EXACT] == [getattr(wanted, n) for n in EXACT]
        for array in ARRAYS:
            np.testing.assert_array_equal(getattr(found, array), getattr(wanted, array), array)
        assert torch.equal(found.rows, wanted.rows)
        np.testing.assert_allclose(found.sum_squares, wanted.sum_squares, rtol=1e-14)
        parts = [
            {p.run: p for p in la.moments.parts} if la.moments else {} for la in (found, wanted)
        ]
        assert parts[0].keys() == parts[1].keys(), name
        for run, part in parts[1].items():
            assert parts[0][run].tokens == part.tokens
            assert torch.equal(parts[0][run].tensors["hessian.0"], part.tensors["hessian.0"])


def cancelled_in_step(
    runs: RunAccumulator, block: torch.nn.Module, step: int, where: str = "between calls"
) -> None:
    """Sample until the user cancels in a step."""
    with pytest.raises(Cancelled), runs.observe(block, ["cancelled"]) as collector:
        for number in range(step + 1):
            if number == step and where == "between calls":
                raise Cancelled
            collector.begin_call(1.0 - number / 4, [1, 0])
            if number == step:
                block.k.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(Cancelled))
            with torch.no_grad():
                block(torch.full((2, 30, 16), 100.0))


def finished(runs: RunAccumulator, block: torch.nn.Module, seed: int) -> None:
    with runs.observe(block, [f"prompt {seed}"]) as collector:
        sample(block, collector, seed)


@pytest.mark.parametrize("where", ["between calls", "in a layer"])
def test_an_interrupted_run_is_kept_aside(
    tiny_block: Callable, fingerprint: ModelFingerprint, where: str
) -> None:
    runs, block = RunAccumulator(CollectorSettings(8), fingerprint), tiny_block()
    finished(runs, block, 0)
    before = runs.statistics()
    cancelled_in_step(runs, block, 2, where)
    assert runs.statistics() is before and not before.runs[0].interrupted
    assert runs.interrupted is not None
    (run,) = runs.interrupted.runs
    assert run.interrupted and run.prompts == ("cancelled",)
    # Two whole calls; the third ended after q. What k and v share with q is not torn apart.
    layers = runs.interrupted.layers
    assert {layer.calls for layer in layers.values()} == {2} and len(layers) == 6
    assert layers["q"] is layers["k"] is layers["v"]
    runs.take_in()
    together = runs.statistics()
    assert [r.interrupted for r in together.runs] == [False, True] and runs.interrupted is None
    assert together.amax("q") == 150.0 and before.amax("q") < 20
    assert together.layers["q"] is together.layers["v"]


def test_a_run_that_saw_nothing_is_not_kept(
    tiny_block: Callable, fingerprint: ModelFingerprint
) -> None:
    runs = RunAccumulator(CollectorSettings(8), fingerprint)
    cancelled_in_step(runs, tiny_block(), 0)
    assert runs.interrupted is None and not runs.statistics().runs
    runs.take_in()
    assert not runs.statistics().layers


def test_interruptions_change_neither_the_schedule_nor_the_disk(
    tiny_block: Callable, fingerprint: ModelFingerprint, tmp_path: Path
) -> None:
    """The second of four runs is held out; interrupted runs collect no Hessians."""
    settings = CollectorSettings(
        8, moments_budget_bytes=BIG, moments_tokens_per_channel=90, moments_folder=tmp_path
    )
    runs, block = RunAccumulator(settings, fingerprint), tiny_block()
    for seed in range(3):
        cancelled_in_step(runs, block, 3)
        assert len(list(tmp_path.glob("*.safetensors"))) == (0, 4, 4)[seed]
        finished(runs, block, seed)
    moments = runs.statistics().layers["o"].moments
    first, _, third = (run.id for run in runs.statistics().runs)
    assert moments is not None and moments.runs == {first, third}
    assert runs.interrupted is not None and len(runs.interrupted.runs) == 3
    assert all(layer.moments is None for layer in runs.interrupted.layers.values())


def test_a_run_that_does_not_count_leaves_no_trace(
    tiny_block: Callable, fingerprint: ModelFingerprint
) -> None:
    runs, block = RunAccumulator(CollectorSettings(8), fingerprint), tiny_block()
    with runs.observe(block, counts=False) as collector:
        assert not any(layer._forward_pre_hooks for layer in block.modules())
        sample(block, collector, 0)
    assert not runs.statistics().runs and runs.interrupted is None


class Changing(torch.nn.Module):
    """Changes the tensor that a and b share in place, where the host cannot tell."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 1.0
        first = self.a(y)
        y.data.mul_(3.0)
        return first + self.b(y)


def test_a_layer_that_may_not_share_is_measured_alone_in_later_runs(
    fingerprint: ModelFingerprint,
) -> None:
    """A fresh collector would drop it in every run."""
    runs, model = RunAccumulator(CollectorSettings(8), fingerprint), Changing()
    for seed in range(2):
        with runs.observe(model) as collector, torch.inference_mode():
            for step in range(3):
                collector.begin_call(0.5, [0])
                model(
                    torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(9 * seed + step))
                )
    found = runs.statistics()
    assert found.layers["a"].calls == 6 and found.layers["b"].calls == 3
    assert found.amax("b") > 2 * found.amax("a") / 3


def test_the_mark_is_stored_and_old_records_load(
    sample_statistics: Callable[..., CalibrationStatistics], tmp_path: Path
) -> None:
    record = RunRecord("a" * 32, "2026-01-01T00:00:00", ("p",), 3, {})
    assert "interrupted" not in record.to_json()  # files of finished runs stay as they were
    assert RunRecord.from_json(record.to_json()) == record
    marked = RunRecord("b" * 32, "2026-01-01T00:00:00", (), 1, {}, interrupted=True)
    assert RunRecord.from_json(marked.to_json()) == marked
    save_statistics(sample_statistics(), tmp_path / "a.safetensors")
    assert not load_statistics(tmp_path / "a.safetensors").runs[0].interrupted
