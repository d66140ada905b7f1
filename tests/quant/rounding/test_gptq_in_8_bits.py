"""Error feedback for formats with scales chosen before, and for MXFP8, against float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.rotation import hadamard
from nvfp4_foundry.quant.rounding import SecondMoments, get_rounding
from nvfp4_foundry.quant.rounding import gptq as rounding_gptq
from nvfp4_foundry.quant.rounding.feedback import factorize

from tests.quant.rounding.test_gptq import correlated
from tests.quant.rounding.test_gptq import moments_of as fresh_moments_of

WIDTH = 512
FIXED = (
    "float8_e4m3fn",
    "float8_e4m3fn_w8a16",
    "float8_e5m2",
    "int8_tensorwise",
    "int8_rowwise",
    "int8_convrot",
    "convrot_w4a4",
    "convrot_w4a8",
)
ROTATED = ("int8_convrot", "convrot_w4a4", "convrot_w4a8")
_GROUP = 256


moments_of: Callable[[torch.Tensor], SecondMoments] = lru_cache(maxsize=4)(fresh_moments_of)
inputs_of: Callable[[int], torch.Tensor] = lru_cache(maxsize=4)(
    lambda tokens: correlated(tokens, WIDTH, 1, 8)
)


def weight_of(rows: int = 24, columns: int = WIDTH) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(5)) * 0.02


def encoded(
    weight: torch.Tensor, name: str, rounding: str, x: torch.Tensor
) -> dict[str, torch.Tensor]:
    rule = get_rounding(rounding).for_input(x.square().mean(0), moments_of(x))
    return dict(get_format(name).encode(weight, rule).tensors)


def decoded(weight: torch.Tensor, name: str, rounding: str, x: torch.Tensor) -> torch.Tensor:
    tensors = encoded(weight, name, rounding, x)
    return get_format(name).decode(tensors, (weight.shape[0], weight.shape[1]))


def nearest_on(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what rounds float64 values in units of the scale to the nearest level by search."""
    if "int8" in name or "convrot" in name:
        lowest, largest = (-7, 7) if "w4" in name else (-128, 127)
        levels = torch.arange(lowest, largest + 1).double()
    else:
        dtype = torch.float8_e5m2 if "e5m2" in name else torch.float8_e4m3fn
        levels = torch.arange(256, dtype=torch.uint8).view(dtype).double()
        levels = levels[levels.isfinite()]
    return lambda wanted: levels[(wanted.unsqueeze(-1) - levels).abs().argmin(-1)]


@pytest.mark.parametrize("name", FIXED)
def test_every_column_takes_in_the_errors_of_those_before(name: str) -> None:
    """By the definition, column by column in float64, with the scales that were chosen."""
    weight, x = weight_of(), inputs_of(2048)
    stored = encoded(weight, name, "gptq", x)
    moments, turn = moments_of(x), torch.eye(WIDTH).double()
    if name in ROTATED:
        moments = moments.rotated(_GROUP)
        turn = torch.block_diag(*[hadamard(_GROUP).double()] * (WIDTH // _GROUP))
    factor = factorize(moments, 16, compensate=False)
    scale = stored["weight_scale"].double().reshape(-1, 1)
    target = weight.double() @ turn / scale
    order, lower, nearest = factor.order, factor.lower.double(), nearest_on(name)
    errors, result = torch.zeros_like(target), torch.zeros_like(target)
    for position in range(WIDTH - 1, -1, -1):
        channel, later = order[position], order[position + 1 :]
        wanted = target[:, channel] + errors[:, later] @ lower[position + 1 :, position]
        result[:, channel] = nearest(wanted)
        errors[:, channel] = target[:, channel] - result[:, channel]
    found = get_format(name).decode(stored, (24, WIDTH)).double() @ turn / scale
    # float32 decides a few values that lie between two levels otherwise, and then those after them
    assert ((found - result).abs() < 1e-3 * result.abs().clamp_min(1e-3)).double().mean() > 0.97
    plain = encoded(weight, name, "weighted", x)
    assert torch.equal(stored["weight_scale"], plain["weight_scale"])


@pytest.mark.parametrize("name", [*FIXED, "mxfp8"])
def test_held_out_outputs_are_better(name: str) -> None:
    seen, new = inputs_of(8192), inputs_of(2048)
    weight = weight_of(96)
    exact = new @ weight.T
    plain, better = (
        (new @ decoded(weight, name, rounding, seen).T - exact).square().sum()
        for rounding in ("weighted", "gptq")
    )
    assert better < 0.4 * plain


@pytest.mark.parametrize("columns", [40, 41, 129])
@pytest.mark.parametrize("name", ["float8_e4m3fn", "int8_rowwise"])
def test_any_width(name: str, columns: int) -> None:
    x, weight = correlated(4096, columns), weight_of(16, columns)
    exact = x @ weight.T
    plain, better = (
        (x @ decoded(weight, name, rounding, x).T - exact).square().sum()
        for rounding in ("weighted", "gptq")
    )
    assert better < 0.7 * plain


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "mxfp8"])
def test_values_that_grow_beyond_the_range_are_clipped(name: str) -> None:
    """The code after the largest stands for NaN or infinity."""
    x = correlated(2048, 64, 0, 4)
    generator = torch.Generator().manual_seed(0)
    weight = 0.9 + 0.1 * torch.rand(64, 64, generator=generator)
    values = decoded(weight * weight_of(64, 64).sign(), name, "gptq", x)
    assert torch.isfinite(values).all()


@pytest.mark.parametrize("name", ["float8_e4m3fn", "int8_rowwise", "mxfp8"])
def test_zeros_and_the_smallest_weights(name: str) -> None:
    x = correlated(2048, 64)
    assert not decoded(torch.zeros(32, 64), name, "gptq", x).any()
    weight = weight_of(32, 64)
    weight[3] = weight[:, 32:] = 0.0
    for factor in (2.0**-120, 2.0**-90):
        values = decoded(weight * factor, name, "gptq", x)
        assert torch.isfinite(values).all() and not values[3].any()


@pytest.mark.parametrize("name", [*FIXED, "mxfp8"])
def test_the_reported_error_is_that_of_the_stored_weight(name: str) -> None:
    x, weight = inputs_of(2048), weight_of()
    rule = get_rounding("gptq").for_input(x.square().mean(0), moments_of(x))
    found = get_format(name).encode(weight, rule, measure_error=True)
    values = get_format(name).decode(found.tensors, (24, WIDTH))
    relative = float((values - weight).norm() / weight.norm())
    assert found.relative_error == pytest.approx(relative, rel=1e-4)


def test_each_block_of_mxfp8_has_the_smallest_scale_that_fits() -> None:
    weight, x = weight_of(128), inputs_of(2048)
    stored = encoded(weight, "mxfp8", "gptq", x)
    codes = stored["weight"].float().view(128, -1, 32).abs().amax(2)
    # the feedback moves the largest value a little after the scale is chosen
    assert ((codes > 224 * 0.9) & (codes <= 448)).all()


def test_layers_of_one_input_share_the_factor_of_nvfp4(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = weight_of(), inputs_of(2048)
    rule = get_rounding("gptq").for_input(x.square().mean(0), moments_of(x))
    get_format("nvfp4").encode(weight, rule)
    monkeypatch.setattr(rounding_gptq, "factorize", lambda *a, **k: pytest.fail("factorized twice"))
    get_format("float8_e4m3fn").encode(weight, rule)


def test_gptaq_is_gptq_because_there_is_no_target_to_move() -> None:
    weight, x = weight_of(), inputs_of(2048)
    for name in ("float8_e4m3fn", "int8_convrot", "mxfp8"):
        assert torch.equal(*(decoded(weight, name, r, x) for r in ("gptq", "gptaq")))


def test_gptaq_makes_its_regression_only_for_a_layer_that_needs_it() -> None:
    weight, x = weight_of(), inputs_of(2048)
    moments, loads = moments_of(x), []
    residual = moments.residual
    assert residual is not None

    def load() -> torch.Tensor:
        loads.append(1)
        return residual

    later = replace(moments, residual=None, load_residual=load)
    rule = get_rounding("gptaq").for_input(x.square().mean(0), later)
    get_format("float8_e4m3fn").encode(weight, rule)
    assert not loads
    found = get_format("nvfp4").encode(weight, rule).tensors
    assert len(loads) == 1
    get_format("float8_e4m3fn").encode(weight, rule)
    get_format("nvfp4").encode(weight, rule)
    assert len(loads) == 1
    expected = encoded(weight, "nvfp4", "gptaq", x)
    assert torch.equal(found["weight"], expected["weight"])
