"""Layers that share an input are measured once, and correctly."""

from __future__ import annotations

import random

import pytest
import torch
from nvfp4_foundry.quant.calibration import ActivationCollector, CollectorSettings, collector

SETTINGS = CollectorSettings(rows_per_layer=6)


@pytest.fixture
def count_measurements(monkeypatch) -> list[int]:
    counted: list[int] = []
    original = collector.measure

    def measure(*args, **kwargs):
        counted.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(collector, "measure", measure)
    return counted


@pytest.mark.parametrize("inference", [True, False])
def test_q_k_v_are_measured_once_and_stored_once(
    tiny_block, recording, check_layer, fingerprint, count_measurements, inference
) -> None:
    block = tiny_block()
    observer = ActivationCollector(SETTINGS)
    with recording(block) as inputs, torch.inference_mode(inference), observer.observe(block):
        for _ in range(4):
            block(torch.randn(1, 3, 16))
    layers = observer.snapshot(fingerprint).layers
    assert len(count_measurements) == 4 * 4
    assert layers["q"] is layers["k"] is layers["v"]
    assert layers["q"].input_id == "k"
    assert len({s.input_id for s in layers.values()}) == 4
    for name, layer in layers.items():
        check_layer(layer, inputs[name])


def test_one_context_for_all_blocks_is_one_input(fingerprint, count_measurements) -> None:
    linears = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(20))
    observer = ActivationCollector(SETTINGS)
    with torch.inference_mode(), observer.observe(linears):
        for _ in range(3):
            context = torch.randn(5, 4)
            for index, linear in enumerate(linears):
                linear(context if index % 2 else torch.randn(2, 4))
    statistics = observer.snapshot(fingerprint)
    assert len(statistics.inputs) == 11
    assert len(count_measurements) == 3 * 11


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("seed", range(25))
def test_random_sharing_is_never_wrong(
    recording, check_layer, fingerprint, inference, seed
) -> None:
    choose = random.Random(seed)
    linears = torch.nn.ModuleDict({n: torch.nn.Linear(4, 4) for n in "abcde"})
    observer = ActivationCollector(SETTINGS)
    with recording(linears) as inputs, torch.inference_mode(inference), torch.no_grad():
        for _ in range(3):
            pool = [torch.randn(choose.randint(1, 3), 4) for _ in range(2)]
            with observer.observe(linears):
                for step in range(12):
                    if choose.random() < 0.3:
                        observer.begin_call(float(step), [0])
                    if choose.random() < 0.3:
                        pool[choose.randrange(2)] = torch.randn(choose.randint(1, 3), 4)
                    order = choose.sample("abcde", choose.randint(1, 5))
                    for name in order:
                        linears[name](pool[0] if choose.random() < 0.7 else choose.choice(pool))
            if choose.random() < 0.5:
                observer.new_run()
    layers = observer.snapshot(fingerprint).layers
    for name, layer in layers.items():
        check_layer(layer, inputs[name])
        each = [float(x.abs().max()) for x in inputs[name]]
        assert layer.call_amax.tolist() == each


def test_a_reused_id_is_not_the_old_tensor(fingerprint) -> None:
    linears = torch.nn.ModuleDict({n: torch.nn.Linear(4, 4) for n in "ab"})
    observer = ActivationCollector(SETTINGS)
    reused = 0
    with torch.inference_mode(), observer.observe(linears):
        for value in range(1, 60):
            # Freed at once: CPython gives the next tensor the same id, the allocator its memory.
            first = torch.full((2, 4), float(value))
            address = id(first)
            linears["a"](first)
            del first
            second = torch.full((2, 4), value + 0.5)
            reused += id(second) == address
            linears["b"](second)
            del second
    assert reused
    layers = observer.snapshot(fingerprint).layers
    assert layers["a"].call_amax.tolist() == [float(v) for v in range(1, 60)]
    assert layers["b"].call_amax.tolist() == [v + 0.5 for v in range(1, 60)]


def test_one_tensor_in_two_model_calls_is_two_inputs(fingerprint) -> None:
    linears = torch.nn.ModuleDict({n: torch.nn.Linear(4, 4) for n in "ab"})
    observer = ActivationCollector(SETTINGS)
    x = torch.ones(2, 4)
    with torch.no_grad(), observer.observe(linears):
        observer.begin_call(1.0, [0])
        linears["a"](x)
        observer.begin_call(0.5, [1])
        linears["b"](x)
    layers = observer.snapshot(fingerprint).layers
    assert (layers["a"].sigma.tolist(), layers["a"].branch.tolist()) == ([1.0], [0])
    assert (layers["b"].sigma.tolist(), layers["b"].branch.tolist()) == ([0.5], [1])


def test_change_in_place_is_seen_by_the_version_counter(fingerprint) -> None:
    linears = torch.nn.ModuleDict({n: torch.nn.Linear(4, 4) for n in "ab"})
    observer = ActivationCollector(SETTINGS)
    for inference in (False, True):
        x = torch.ones(2, 4)
        with torch.inference_mode(inference), torch.no_grad(), observer.observe(linears):
            linears["a"](x)
            x += 1
            linears["b"](x)
    layers = observer.snapshot(fingerprint).layers
    assert layers["a"].amax == 1.0
    assert layers["b"].amax == 2.0


def test_change_in_place_of_an_inference_tensor_is_found_later(fingerprint) -> None:
    linears = torch.nn.ModuleDict({n: torch.nn.Linear(8, 8) for n in "abc"})
    observer = ActivationCollector(SETTINGS)

    def forward() -> None:
        with torch.inference_mode(), observer.observe(linears):
            for _ in range(2):
                x = torch.ones(6, 8)
                linears["a"](x)
                linears["c"](x)
                x[3:] += 1
                linears["b"](x)

    forward()
    first = observer.snapshot(fingerprint)
    assert set(first.layers) == {"a", "c"}
    assert first.layers["a"] is first.layers["c"]
    report = first.coverage("abc")
    assert report.uncovered == report.changed == ("b",)
    forward()
    second = observer.snapshot(fingerprint)
    assert second.layers["a"].amax == 1.0
    assert second.layers["b"].amax == 2.0
    assert second.layers["b"].calls == 2
    assert second.changed_layers == ()


def test_budget_counts_layers_that_stop_sharing(fingerprint) -> None:
    linears = torch.nn.ModuleDict({n: torch.nn.Linear(4, 4) for n in "abcd"})
    budget = 10 * 4 * 4
    observer = ActivationCollector(CollectorSettings(10, memory_budget_bytes=budget))
    with torch.no_grad(), observer.observe(linears):
        x = torch.randn(20, 4)
        for name in "abcd":
            linears[name](x)
        assert observer.rows_per_layer == 10
        for name in "abcd":
            linears[name](torch.randn(20, 4))
    statistics = observer.snapshot(fingerprint)
    assert len(statistics.inputs) == 4
    assert sum(s.rows.numel() * 4 for s in statistics.inputs.values()) <= budget
    assert observer.rows_per_layer == 2
