"""Mixes of real models: found in seconds, on a frontier that is sound."""

from __future__ import annotations

import time

import pytest
from nvfp4_foundry.quant.derive import Budget, Mix, frontier, mix_plan
from nvfp4_foundry.quant.planning import Inventory, Plan, get_preset, make_plan
from nvfp4_foundry.quant.sensitivity.artefact import Sensitivity

from tests.helpers.made_up_models import (
    InventoryNamed,
    formats_of,
    random_costs,
    sensitivity_of,
    shared_inputs,
)

REAL = [
    ("wan2.2-ti2v-5b", "wan2.2-ti2v-5b"),
    ("wan2.2-t2v-14b", "wan2.2-14b"),
    ("qwen-image-2512", "qwen-image-2512"),
]


@pytest.fixture(params=REAL, ids=[name for name, _ in REAL])
def real(
    request: pytest.FixtureRequest, inventory_named: InventoryNamed
) -> tuple[Inventory, Plan, Sensitivity]:
    name, preset = request.param
    inventory = inventory_named(name)
    linears = [la.name for la in inventory.of_kind("linear")]
    sensitivity = sensitivity_of(inventory, random_costs(linears, 7), shared_inputs(linears))
    return inventory, make_plan(get_preset(preset).build(), inventory), sensitivity


def test_real_models(real: tuple[Inventory, Plan, Sensitivity]) -> None:
    inventory, base, sensitivity = real
    started = time.perf_counter()
    mix = mix_plan(base, inventory, sensitivity)
    # Measured: under two seconds on one core; the search itself gives up after five.
    assert time.perf_counter() - started < 20
    assert mix.point.error < mix.preset.error * 0.95
    assert 0 <= mix.below_budget < 0.005
    assert_alike_where_inputs_are(mix, sensitivity)
    assert_frontier_is_sound(mix)
    again = make_plan(mix.recipe, inventory)
    assert formats_of(again) == formats_of(mix.plan)
    assert again.bytes_after == mix.point.bytes and again.warnings == ()
    assert max(len(la.reason) for la in again.layers) < 300


def assert_alike_where_inputs_are(mix: Mix, sensitivity: Sensitivity) -> None:
    formats: dict[str, set[str]] = {}
    for layer in mix.plan.quantized():
        shared = sensitivity.layers[layer.name].input_id
        if shared is not None:
            formats.setdefault(shared, set()).add(layer.format)
    assert formats and all(len(names) == 1 for names in formats.values())


def assert_frontier_is_sound(mix: Mix) -> None:
    curve = mix.frontier
    assert 12 <= len(curve) <= 16 and mix.point in curve
    assert [p.bytes for p in curve] == sorted({p.bytes for p in curve})
    assert [p.error for p in curve] == sorted({p.error for p in curve}, reverse=True)
    assert set(curve[0].counts) == {"nvfp4"} and curve[0].bits == 4.5
    assert set(curve[-1].counts) == {"bf16"} and curve[-1].error == 0
    assert len({sum(p.counts.values()) for p in (*curve, mix.preset)}) == 1
    below = [p.error for p in curve if p.bytes <= mix.preset.bytes]
    assert min(below) < mix.preset.error


def test_the_frontier_by_itself(real: tuple[Inventory, Plan, Sensitivity]) -> None:
    inventory, base, sensitivity = real
    curve = frontier(base, inventory, sensitivity, points=5)
    assert len(curve) == 5
    for point in curve[1:-1]:
        mix = mix_plan(base, inventory, sensitivity, Budget(size=point.bytes), points=0)
        assert mix.frontier == ()
        assert mix.point.error == pytest.approx(point.error, rel=1e-3)
