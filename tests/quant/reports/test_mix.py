"""Warnings of a mix about how reliable its prediction is."""

from __future__ import annotations

import math

import pytest
from nvfp4_foundry.quant.derive import Budget, mix_plan
from nvfp4_foundry.quant.planning import Recipe, make_plan
from nvfp4_foundry.quant.reports.mix import describe_mix

from tests.helpers.made_up_models import Costs, inventory_from, sensitivity_of

NAMES = ("blocks.0.a", "blocks.0.b")
FORMATS = ("nvfp4", "float8_e4m3fn")


def described(sigmas: tuple[float, ...], costs: Costs, budget: Budget | None = None) -> str:
    """Return the report of a mix from shifts with these squares at every sigma."""
    inventory = inventory_from(dict.fromkeys(NAMES, (64, 64)))
    base = make_plan(Recipe(default="nvfp4", name="mine"), inventory)
    sensitivity = sensitivity_of(inventory, costs)
    for fmt in FORMATS if sigmas else ():
        shifts = {n: dict.fromkeys(sigmas, math.sqrt(costs[n][fmt] or 0.0)) for n in NAMES}
        sensitivity = sensitivity.with_latents(fmt, shifts)
    return describe_mix(mix_plan(base, inventory, sensitivity, budget, FORMATS))


COSTS: Costs = {name: {"nvfp4": 8e-4, "float8_e4m3fn": 1e-4} for name in NAMES}


@pytest.mark.parametrize(
    ("sigmas", "what", "doubt"),
    [
        ((), "all layers' outputs together", "warning: the sensitivity was not probed"),
        ((0.9, 0.2), "the model's output", "warning: single model calls were probed"),
        ((0.9, 0.0), "the model's output", "warning: single model calls were probed"),
        ((0.0,), "the sampled latent in short samplings", "note: no better than mine at this size"),
    ],
)
def test_doubts_are_said(sigmas: tuple[float, ...], what: str, doubt: str) -> None:
    text = described(sigmas, COSTS)
    assert f"error   4.00% predicted, of {what}; preset mine: 4.00%" in text
    assert doubt in text


def test_a_better_mix_by_short_samplings_has_no_doubts() -> None:
    text = described((0.0,), COSTS, Budget(bits=8))
    assert "error   1.41% predicted, of the sampled latent" in text
    assert "warning" not in text and "note" not in text
