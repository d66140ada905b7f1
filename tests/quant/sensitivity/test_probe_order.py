"""Which unit a probe runs next, and when it ends, on gains of a made-up model of 30 blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from nvfp4_foundry.quant.derive.mix.knapsack import choose
from nvfp4_foundry.quant.sensitivity.gains import RunTraits
from nvfp4_foundry.quant.sensitivity.probe_order import STOP_BELOW, ProbeOrder
from nvfp4_foundry.quant.sensitivity.probe_record import ProbeRun

BLOCKS, FORMATS, BITS = 30, ("nvfp4", "float8_e4m3fn"), (9, 16, 32)
#: Weights of the units of a block, in thousands.
KINDS = {"q": 12, "o": 4, "cross.q": 4, "cross.k": 8, "cross.o": 4, "ffn.0": 16, "ffn.2": 16}
ERRORS = dict(zip(FORMATS, (1e-2, 1e-3), strict=True))


class Model:
    """Units whose gains depend on their kind and block, and on chance."""

    def __init__(self, seed: int, blocks: int = BLOCKS) -> None:
        draw = np.random.default_rng(seed)
        by_kind = dict(zip(KINDS, np.exp(1.5 * draw.standard_normal(len(KINDS))), strict=True))
        by_block = np.exp(0.8 * np.cumsum(draw.standard_normal(blocks)) / 2)
        self.units = [f"blocks.{b}.{kind}" for b in range(blocks) for kind in KINDS]
        self.weights = {u: 1000 * KINDS[u.split(".", 2)[2]] for u in self.units}
        self.shifts: dict[ProbeRun, float] = {}
        for unit in self.units:
            _, block, kind = unit.split(".", 2)
            gain = by_kind[kind] * by_block[int(block)] * math.exp(0.3 * draw.standard_normal())
            for fmt in FORMATS:
                own = math.exp(0.2 * draw.standard_normal())
                self.shifts[fmt, unit] = 1e-3 * ERRORS[fmt] * gain * own
        #: Half of the bytes between the smallest and the largest quantized mix.
        self.size = sum(self.weights.values()) * (BITS[0] + BITS[1]) // 16

    def order(self, size: int | None) -> ProbeOrder:
        traits = [
            RunTraits((fmt, u), f"blocks.*.{u.split('.', 2)[2]}", "blocks", i // len(KINDS), error)
            for fmt, error in ERRORS.items()
            for i, u in enumerate(self.units)
        ]
        stored = {(f, u): self.weights[u] * BITS[FORMATS.index(f)] // 8 for f, u in self.shifts}
        return ProbeOrder(traits, stored, {u: 4 * w for u, w in self.weights.items()}, size)

    def probed(self, order: ProbeOrder, stop_below: float = STOP_BELOW) -> dict[ProbeRun, float]:
        known: dict[ProbeRun, float] = {}
        while run := order.next_run(known, stop_below):
            assert run not in known
            known[run] = self.shifts[run]
        return known

    def cost_of_mix(self, shifts: dict[ProbeRun, float]) -> float:
        """Return the true cost of the mix that these shifts lead to."""
        costs = [[*(shifts[fmt, unit] for fmt in FORMATS), 0.0] for unit in self.units]
        sizes = [[self.weights[unit] * bits / 8 for bits in BITS] for unit in self.units]
        chosen = choose(costs, sizes, self.size)
        assert chosen is not None
        own = zip(self.units, chosen, strict=True)
        return sum(self.shifts[FORMATS[c], unit] for unit, c in own if c < len(FORMATS))


@pytest.mark.parametrize("seed", range(3))
def test_a_quarter_of_the_runs_gives_nearly_the_best_mix(seed: int) -> None:
    model = Model(seed)
    order = model.order(model.size)
    known = model.probed(order)
    assert 3 < len(known) < len(model.shifts) / 4
    assert order.doubt(known) < STOP_BELOW <= order.doubt({})
    best = model.cost_of_mix(model.shifts)
    # 6% of the squared error are 3% of the error
    assert model.cost_of_mix(order.completed(known)) < 1.06 * best
    # and the output errors alone, without any probe, would not do
    unprobed = {run: ERRORS[run[0]] for run in model.shifts}
    assert model.cost_of_mix(unprobed) > 1.06 * best


def test_an_interrupted_probe_goes_on_as_if_it_had_not_stopped() -> None:
    model = Model(0)
    known = model.probed(model.order(model.size))
    half = dict(list(known.items())[: len(known) // 2])
    assert model.order(model.size).next_run(half, STOP_BELOW) == list(known)[len(half)]


def test_without_a_threshold_all_run() -> None:
    model = Model(1, blocks=6)
    assert model.probed(model.order(None), 0.0).keys() == model.shifts.keys()


def test_without_a_plan_mixes_of_several_sizes_count() -> None:
    model = Model(2)
    of_plan, of_any = model.probed(model.order(model.size)), model.probed(model.order(None))
    assert len(of_plan) <= len(of_any) < len(model.shifts) / 3


def test_a_shift_that_is_not_finite_is_not_asked_again_and_tells_nothing() -> None:
    model = Model(0)
    order, run = model.order(model.size), ("nvfp4", model.units[0])
    assert order.completed({run: math.nan}).keys() == {run}
    known = {run: math.nan, **dict.fromkeys([("nvfp4", model.units[1])], 1e-5)}
    assert order.next_run(known, STOP_BELOW) not in known
    without = {other: square for other, square in known.items() if other != run}
    found, wanted = order.completed(known), order.completed(without)
    assert math.isnan(found.pop(run)) and found == {r: wanted[r] for r in found}


def test_a_unit_that_never_runs_does_not_keep_the_probe_going() -> None:
    """Such as the image embedding of a WAN that samples without an image."""
    model = Model(0, blocks=12)
    usual = len(model.probed(model.order(model.size)))
    for name in ("img_emb", "extra"):
        model.units.append(f"x.0.{name}")
        model.weights[model.units[-1]] = 20_000
        model.shifts |= {(fmt, model.units[-1]): math.nan for fmt in FORMATS}
    order = model.order(model.size)
    known = model.probed(order)
    assert len(known) < 1.3 * usual and order.doubt(known) < STOP_BELOW


def test_nothing_to_choose_from() -> None:
    order = ProbeOrder((), {}, {})
    assert order.next_run({}, 0.0) is None and order.completed({}) == {}
