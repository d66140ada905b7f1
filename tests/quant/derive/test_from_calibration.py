"""Recipes from a calibration: errors of rounded inputs by hand, ranges of runs, coverage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from nvfp4_foundry.quant.calibration import CalibrationStatistics, LayerStatistics, RunRecord
from nvfp4_foundry.quant.calibration.input_scale import parse_policy
from nvfp4_foundry.quant.derive import recipe_from_statistics
from nvfp4_foundry.quant.derive.from_calibration import input_error
from nvfp4_foundry.quant.derive.overrides import layers_by_shape
from nvfp4_foundry.quant.errors import FormatError, RecipeError
from nvfp4_foundry.quant.fingerprint import ModelFingerprint
from nvfp4_foundry.quant.planning import Recipe, parse_rule_lines
from nvfp4_foundry.quant.planning.plan import decide_format

WIDTH = 64
NAMES = ("b.0.q", "b.0.k", "b.0.o", "b.0.f", "b.1.q", "b.1.o", "b.1.f", "head")
BASE = Recipe(name="base", rules=parse_rule_lines("b.*.f = nvfp4_w4a16\nb.* = nvfp4"))


def layer(name: str, amax: list[float], rows: torch.Tensor, run: list[int]) -> LayerStatistics:
    count = len(amax)
    return LayerStatistics(
        input_id=name, in_features=WIDTH, calls=count, tokens=count, tokens_used=count,
        sigma=np.full(count, np.nan, np.float32), branch=np.zeros(count, np.int8),
        call_amax=np.array(amax, np.float32), run=np.array(run, np.int32),
        sum_squares=np.ones(WIDTH), channel_amax=np.ones(WIDTH, np.float32), rows=rows,
        priorities=np.arange(len(rows)) / 100, row_limit=math.inf,
        row_run=np.zeros(len(rows), np.int32),
    )  # fmt: skip


def outliers() -> torch.Tensor:
    """Return inputs with one value in each block of 16 that is far larger than the others."""
    rows = torch.ones(8, WIDTH)
    rows[:, ::16] = 11.0
    return rows


RUNS = [0, 0, 1, 1]
SMALL = torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)


@pytest.fixture
def statistics() -> CalibrationStatistics:
    plain = layer("b.0.q", [3.0, 2.0, 3.0, 2.5], SMALL, RUNS)
    layers = {
        "b.0.q": plain,
        "b.0.k": plain,
        "b.0.o": layer("b.0.o", [11.0] * 4, outliers(), RUNS),
        "b.0.f": layer("b.0.f", [11.0] * 4, outliers(), RUNS),
        "b.1.q": layer("b.1.q", [1.0, 2.0, 8.5, 3.0], SMALL, RUNS),
        "b.1.o": layer("b.1.o", [3.0], SMALL, [0]),
        "head": layer("head", [11.0] * 4, outliers(), RUNS),
    }
    runs = tuple(RunRecord(f"{i}", f"2026-01-0{i + 1}", (), 2, {}) for i in (0, 1))
    model = ModelFingerprint(dict.fromkeys(NAMES, (WIDTH, WIDTH)), {})
    return CalibrationStatistics(layers, model, runs, 32, ("test",))


def chosen(recipe: Recipe) -> dict[str, str]:
    layers = layers_by_shape(dict.fromkeys(NAMES, (WIDTH, WIDTH))).layers
    return {name: decide_format(recipe, la)[0] for name, la in layers.items()}


def test_an_input_error_by_hand(statistics: CalibrationStatistics) -> None:
    """Blocks of 11 and 15 ones: the block scale is 11/6 in E4M3 steps, a one is 0.5 or 1 of it."""
    ones, eleven = 1.0, 11.0
    scale = 11.0 * 4 / 2688
    block_scale = float(torch.tensor(eleven / 6 / scale).to(torch.float8_e4m3fn)) * scale
    levels = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]

    def rounded(value: float) -> float:
        return block_scale * min(levels, key=lambda level: abs(level - value / block_scale))

    error = (rounded(eleven) - eleven) ** 2 + 15 * (rounded(ones) - ones) ** 2
    expected = math.sqrt(error / (eleven**2 + 15 * ones**2))
    assert input_error(statistics.layers["b.0.o"], "nvfp4", BASE) == pytest.approx(
        expected, rel=1e-5
    )
    assert input_error(statistics.layers["b.0.o"], "nvfp4_w4a16", BASE) is None


def test_what_does_not_bear_rounding(statistics: CalibrationStatistics) -> None:
    low, high = (input_error(statistics.layers[name], "nvfp4", BASE) for name in ("b.0.o", "b.0.q"))
    assert low is not None and high is not None and low < 0.08 < 0.1 > high
    formats = chosen(recipe_from_statistics(statistics, BASE, (low + high) / 2).recipe)
    assert formats["b.0.q"] == formats["b.0.k"] == "nvfp4_w4a16"
    assert formats["b.0.o"] == "nvfp4"


def test_ranges_that_differ_between_runs(statistics: CalibrationStatistics) -> None:
    assert statistics.layers["b.1.q"].spread == 8.5 / 2.0
    assert statistics.layers["b.0.q"].spread == 1.0
    strict, loose = (
        chosen(recipe_from_statistics(statistics, BASE, max_spread=x).recipe) for x in (4.2, 4.3)
    )
    assert strict["b.1.q"] == "nvfp4_w4a16" and loose["b.1.q"] == "nvfp4"
    assert chosen(recipe_from_statistics(statistics, BASE).recipe)["b.1.q"] == "nvfp4_w4a16"
    roomy = BASE.with_numbers(input_scale="amax*8")
    saved = BASE.model_copy(update={"headroom": 8.0, "input_scale": parse_policy("dynamic")})
    for base in (roomy, saved):
        assert chosen(recipe_from_statistics(statistics, base).recipe)["b.1.q"] == "nvfp4"


def test_what_is_not_known_is_left_in_16_bits(statistics: CalibrationStatistics) -> None:
    derived = recipe_from_statistics(statistics, BASE)
    formats = chosen(derived.recipe)
    assert formats["b.1.f"] == "keep"  # never observed
    assert formats["b.1.o"] == "keep"  # one of four calls
    assert formats["head"] == "keep"  # as in the base
    broken = replace(statistics.layers["b.0.o"], call_amax=np.array([1, np.nan, 1, 1], np.float32))
    part = replace(statistics, layers={**statistics.layers, "b.0.o": broken})
    assert chosen(recipe_from_statistics(part, BASE, unseen="bf16").recipe)["b.0.o"] == "bf16"
    whys = {rule.why for rule in derived.recipe.rules}
    assert {"never observed", "observed in only a part of the model calls"} <= whys


def test_16_bit_activations_are_not_judged(statistics: CalibrationStatistics) -> None:
    derived = recipe_from_statistics(statistics, BASE, 0.001)
    formats = chosen(derived.recipe)
    assert formats["b.0.f"] == formats["b.0.o"] == "nvfp4_w4a16"
    assert derived.notes[0] == "6 of 7 quantized Linear layers get another format"


def test_statistics_of_a_log_have_no_rows(statistics: CalibrationStatistics) -> None:
    bare = {
        name: replace(la, rows=la.rows[:0], priorities=la.priorities[:0], row_run=la.row_run[:0])
        for name, la in statistics.layers.items()
    }
    formats = chosen(recipe_from_statistics(replace(statistics, layers=bare), BASE, 0.001).recipe)
    assert formats["b.0.o"] == "nvfp4" and formats["b.1.q"] == "nvfp4_w4a16"


def test_what_makes_no_sense_is_refused(statistics: CalibrationStatistics) -> None:
    for options in ({"max_input_error": 12}, {"max_spread": 0.5}, {"max_spread": math.nan}):
        with pytest.raises(RecipeError, match="between 0 and 1"):
            recipe_from_statistics(statistics, BASE, **options)
    with pytest.raises(FormatError):
        recipe_from_statistics(statistics, BASE, careful="nvfp5")
    with pytest.raises(RecipeError, match="quantizes none"):
        recipe_from_statistics(statistics, Recipe())
