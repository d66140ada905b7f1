"""Second moments collected while sampling, without the sampled rows and the held-out run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.formats.nvfp4 import NVFP4

from tests.helpers.moments_by_hand import BIG, Observed, check


def test_collected_while_sampling(observe: Callable[..., Observed]) -> None:
    settings = CollectorSettings(rows_per_layer=20, moments_budget_bytes=BIG)
    statistics, seen = observe(1, ActivationCollector(settings))
    layers = statistics.layers
    assert layers["q"].moments is layers["k"].moments is layers["v"].moments
    for name in ("q", "o", "ffn.0", "ffn.2"):
        layer = layers[name]
        assert layer.moments is not None
        # Everything but the tokens that were candidates for the sampled rows.
        kept = {row.numpy().tobytes() for row in layer.rows}
        calls = [x.reshape(-1, x.shape[-1]) for x in seen[name]]
        total = sum(len(x) for x in calls)
        assert total - 120 < layer.moments.tokens <= total - len(kept)
        moments = layer.moments.load()
        rounded = [NVFP4().emulate_activations(x, None) for x in calls]
        wanted = torch.cat(rounded)
        expected = wanted.T @ wanted / len(wanted)
        assert (moments.hessian - expected).norm() < 0.5 * expected.norm()


def test_sampled_rows_and_moments_share_no_token(
    tiny_block: Callable, fingerprint: ModelFingerprint
) -> None:
    """Each token has its own channel, so the Hessian's diagonal shows which tokens were used."""
    settings = CollectorSettings(rows_per_layer=5, moments_budget_bytes=BIG)
    collector = ActivationCollector(settings)
    layer = torch.nn.Sequential(torch.nn.Linear(64, 16))
    collector.new_run()
    with torch.no_grad(), collector.observe(layer):
        layer(torch.eye(64).unsqueeze(0))
    found = collector.snapshot(fingerprint).layers["0"]
    assert found.moments is not None
    in_moments = set(found.moments.load().hessian.diagonal().nonzero().flatten().tolist())
    in_rows = set(found.rows.argmax(1).tolist())
    assert len(in_rows) == 5 and len(in_moments) == 59
    assert not in_rows & in_moments


def test_second_run_is_held_out_and_rows_know_their_run(
    observe: Callable[..., Observed],
) -> None:
    settings = CollectorSettings(rows_per_layer=180, moments_budget_bytes=BIG)
    statistics, seen = observe(3, ActivationCollector(settings))
    layer = statistics.layers["o"]
    assert layer.moments is not None
    first, second, third = (run.id for run in statistics.runs)
    assert layer.moments.runs == {first, third}
    by_run = [set() for _ in range(3)]
    for index, x in enumerate(seen["o"]):
        by_run[index // 4] |= {row.numpy().tobytes() for row in x.reshape(-1, 16)}
    for row, run in zip(layer.rows, layer.row_run, strict=True):
        assert row.numpy().tobytes() in by_run[run]
    held_out = statistics.held_out_rows("o")
    assert held_out.from_other_runs
    assert all(row.numpy().tobytes() in by_run[1] for row in held_out.rows)
    assert second not in layer.moments.runs


def test_an_input_that_never_changes_counts_once(observe: Callable[..., Observed]) -> None:
    settings = CollectorSettings(rows_per_layer=4, moments_budget_bytes=BIG)
    statistics, _ = observe(1, ActivationCollector(settings), same=True)
    moments = statistics.layers["q"].moments
    assert moments is not None
    assert 60 - 4 <= moments.tokens <= 60  # one call, not four
    assert moments.repeats
    assert not statistics.held_out_rows("q").from_other_runs


def test_observed_output_is_bit_equal_and_off_is_off(
    tiny_block: Callable, fingerprint: ModelFingerprint
) -> None:
    torch.manual_seed(3)
    block, x = tiny_block(), torch.randn(2, 9, 16)
    with torch.inference_mode():
        plain = block(x)
        for budget in (0, BIG):
            collector = ActivationCollector(CollectorSettings(4, moments_budget_bytes=budget))
            state = torch.get_rng_state()
            with collector.observe(block):
                assert torch.equal(block(x), plain)
            assert torch.equal(torch.get_rng_state(), state)
            found = [la.moments for la in collector.snapshot(fingerprint).layers.values()]
            assert all(found) if budget else not any(found)


def test_layers_that_part_ways(tiny_block: Callable, fingerprint: ModelFingerprint) -> None:
    """q and k share an input for one run, then k gets another; both keep correct moments."""

    class Pair(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.q(x) + self.k(y)

    torch.manual_seed(4)
    pair, collector = Pair(), ActivationCollector(CollectorSettings(0, moments_budget_bytes=BIG))
    shared, x, y = torch.randn(20, 16), torch.randn(20, 16), 5 * torch.randn(20, 16)
    with torch.no_grad():
        collector.new_run()
        with collector.observe(pair):
            pair(shared, shared)
        collector.new_run()  # held out
        collector.new_run()
        with collector.observe(pair):
            pair(x, y)
    layers = collector.snapshot(fingerprint).layers
    q, k = layers["q"].moments, layers["k"].moments
    assert q is not None and k is not None
    check(q, shared, x) if q.tokens == 40 else check(q, shared)
    check(k, shared, y) if k.tokens == 40 else check(k, shared)
    assert {q.tokens, k.tokens} >= {40}


@pytest.mark.parametrize("repeats", [True, False])
def test_another_seed_is_another_run_but_the_same_context(
    fingerprint: ModelFingerprint, repeats: bool
) -> None:
    """The same prompt cannot judge an input that depends on the prompt alone."""
    torch.manual_seed(6)
    first, second = torch.randn(2, 50, 32)
    collector = ActivationCollector(CollectorSettings(400, moments_budget_bytes=BIG))
    layer = torch.nn.Sequential(torch.nn.Linear(32, 8))
    for prompt, context in [("one", first)] * 5 + [("two", second)]:  # the sixth is held out
        collector.new_run(prompt)
        with torch.no_grad(), collector.observe(layer):
            for _ in range(16):
                layer(context if repeats else torch.randn(50, 32))
    statistics = collector.snapshot(fingerprint)
    held_out, runs = statistics.held_out_rows("0"), statistics.layers["0"].moments
    assert runs is not None and held_out.from_other_runs
    known = {row.numpy().tobytes() for row in first}
    assert not known & {row.numpy().tobytes() for row in held_out.rows}
    if not repeats:
        assert (
            len(held_out.rows)
            == np.isin(
                statistics.layers["0"].row_run,
                [i for i, run in enumerate(statistics.runs) if run.id not in runs.runs],
            ).sum()
        )
