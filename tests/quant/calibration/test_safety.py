"""Observing changes nothing: outputs, hooks, random state, memory, device queue."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings
from nvfp4_foundry.quant.errors import CalibrationError


def _hooks(module: torch.nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inference", [True, False])
def test_output_input_and_random_state_are_untouched(tiny_block, dtype, inference) -> None:
    block = tiny_block().to(dtype)
    x = torch.randn(2, 9, 16).to(dtype)
    before, version = x.clone(), x._version
    collector = ActivationCollector(CollectorSettings(rows_per_layer=3, mean_square_tokens=2))
    with torch.inference_mode(inference):
        plain = block(x)
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
        with collector.observe(block):
            for _ in range(3):
                collector.begin_call(1.0, [1, 0])
                observed = block(x)
    assert torch.equal(plain, observed)
    assert observed.requires_grad != inference
    assert torch.equal(x, before)
    assert x._version == version
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_gradients_still_flow(tiny_block) -> None:
    block = tiny_block()
    x = torch.randn(1, 4, 16)
    block(x).sum().backward()
    expected = block.q.weight.grad.clone()
    block.zero_grad()
    with ActivationCollector().observe(block):
        block(x).sum().backward()
    assert torch.equal(block.q.weight.grad, expected)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_hooks_are_removed_when_the_model_raises(tiny_block, fingerprint, error) -> None:
    block = tiny_block()
    collector = ActivationCollector()

    def explode(*_: object) -> None:
        raise error("stop")

    handle = block.v.register_forward_pre_hook(explode)
    with pytest.raises(error), collector.observe(block):
        assert _hooks(block) == 7
        block(torch.ones(1, 2, 16))
    handle.remove()
    assert _hooks(block) == 0
    with collector.observe(block):
        block(torch.ones(1, 2, 16))
    layers = collector.snapshot(fingerprint).layers
    # The run stopped after q and k, before v's own hook was reached: that call does not count.
    assert {s.calls for s in layers.values()} == {1} and len(layers) == 6
    assert layers["q"] is layers["k"] is layers["v"]


def test_observing_twice_is_refused_and_recovers(tiny_block) -> None:
    block = tiny_block()
    collector = ActivationCollector()
    with collector.observe(block):
        with pytest.raises(CalibrationError, match="already"), collector.observe(block):
            pass
        with pytest.raises(CalibrationError, match="while it observes"):
            collector.reset()
        assert _hooks(block) == 6
    with collector.observe(block):
        assert _hooks(block) == 6
    assert _hooks(block) == 0


def test_activations_are_not_kept_alive() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(64, 4))
    collector = ActivationCollector(CollectorSettings(rows_per_layer=1))
    with torch.inference_mode(), collector.observe(model):
        x = torch.ones(1000, 64)
        model(x)
        seen = weakref.ref(x)
        del x
        gc.collect()
        assert seen() is None


@pytest.mark.parametrize("inference", [True, False])
def test_hooks_never_wait_for_the_device(tiny_block, monkeypatch, inference) -> None:
    block = tiny_block()
    collector = ActivationCollector(CollectorSettings(rows_per_layer=5, memory_budget_bytes=900))
    sigma = torch.tensor([0.5, 0.5])

    def forbidden(self: torch.Tensor, *_: object, **__: object) -> None:
        raise AssertionError("a hook read from the device")

    names = ("item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__", "nonzero",
             "__index__", "__array__")  # fmt: skip
    # The patch ends first: leaving the observation may read.
    with (
        torch.inference_mode(inference),
        torch.no_grad(),
        collector.observe(block),
        monkeypatch.context() as patch,
    ):
        for name in names:
            patch.setattr(torch.Tensor, name, forbidden)
        for step in range(3):
            collector.begin_call(sigma, [1, 0])
            block(torch.ones(2, 7 + step, 16))
    assert collector.rows_per_layer < 5


@pytest.mark.parametrize("inference", [True, False])
def test_hooks_need_no_data_at_all(inference) -> None:
    # Meta tensors have no values: any read or data-dependent shape would raise.
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)).to("meta")
    collector = ActivationCollector(CollectorSettings(rows_per_layer=5, memory_budget_bytes=400))
    with torch.inference_mode(inference), torch.no_grad(), collector.observe(model):
        for _ in range(3):
            collector.begin_call(torch.ones(2, device="meta"), [1, 0])
            model(torch.ones(4, 9, 16, device="meta"))


def test_memory_budget_is_kept_and_even(tiny_block, fingerprint) -> None:
    blocks = torch.nn.Sequential(*(tiny_block() for _ in range(8)))
    budget = 40_000
    collector = ActivationCollector(CollectorSettings(500, memory_budget_bytes=budget))
    with torch.no_grad(), collector.observe(blocks):
        for _ in range(3):
            blocks(torch.randn(1, 300, 16))
            held = [
                rows.numel() * rows.element_size()
                for group in set(collector._groups.values())
                for rows in (group.reservoir.rows, group.pending and group.pending.rows)
                if rows is not None
            ]
            assert sum(held) <= budget
    statistics = collector.snapshot(fingerprint)
    used = sum(s.rows.numel() * s.rows.element_size() for s in statistics.inputs.values())
    # Four inputs per block: 16 + 16 + 16 + 40 channels in float32.
    assert 0.9 * budget < used <= budget
    assert {len(s.rows) for s in statistics.layers.values()} == {collector.rows_per_layer}
    assert collector.rows_per_layer == statistics.rows_per_layer == budget // (8 * 88 * 4)


def test_no_rows_at_all(tiny_block, fingerprint) -> None:
    block = tiny_block()
    collector = ActivationCollector(CollectorSettings(rows_per_layer=0))
    with torch.no_grad(), collector.observe(block):
        block(torch.randn(1, 3, 16))
    assert collector.snapshot(fingerprint).layers["q"].rows.shape == (0, 16)
