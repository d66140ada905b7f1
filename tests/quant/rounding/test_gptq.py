"""Error feedback against plain arithmetic, and its gain on held-out inputs."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from nvfp4_foundry.quant.errors import FormatError
from nvfp4_foundry.quant.formats.base import safe_scale
from nvfp4_foundry.quant.formats.nvfp4 import NVFP4, NVFP4W4A16
from nvfp4_foundry.quant.formats.nvfp4_scales import BLOCK, SEARCH_DIVISOR, NVFP4Grid
from nvfp4_foundry.quant.rounding import GptqRule, SecondMoments, SweepRule, get_rounding
from nvfp4_foundry.quant.rounding.feedback import FeedbackFactor, factorize, shrinkage
from nvfp4_foundry.quant.rounding.gptq import round_with_feedback


def correlated(tokens: int, width: int, seed: int = 0, outliers: int = 0) -> torch.Tensor:
    """Inputs whose energy lies in few directions, as activations' does."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    spectrum = 1 / (1 + torch.arange(width) * 32 / width)
    scale = torch.exp(0.5 * torch.randn(width, generator=generator))
    scale[torch.randperm(width, generator=generator)[:outliers]] *= 25
    draw = torch.Generator().manual_seed(seed + 100 + tokens)
    return torch.randn(tokens, width, generator=draw) @ (basis * spectrum).T * scale


def moments_of(x: torch.Tensor) -> SecondMoments:
    rounded = NVFP4().emulate_activations(x, None)
    residual = x - rounded
    return SecondMoments(
        hessian=rounded.T @ rounded / len(x),
        residual=residual.T @ rounded / len(x),
        residual_energy=residual.square().mean(0),
        mean=x.mean(0),
        mean_rounded=rounded.mean(0),
        tokens=len(x),
    )


def decoded(weight: torch.Tensor, rule: SweepRule, fmt: NVFP4 | None = None) -> torch.Tensor:
    fmt = fmt or NVFP4()
    return fmt.decode(fmt.encode(weight, rule).tensors, tuple(weight.shape))


def output_error(weight: torch.Tensor, values: torch.Tensor, x: torch.Tensor) -> float:
    """Squared W4A4 output error relative to the squared output."""
    exact = x @ weight.T
    seen = NVFP4().emulate_activations(x, None)
    return float((seen @ values.T - exact).square().sum() / exact.square().sum())


def rule_for(name: str, x: torch.Tensor) -> SweepRule:
    rule = get_rounding(name).for_input(x.square().mean(0), moments_of(x))
    assert isinstance(rule, SweepRule)
    return rule


def test_the_factor_is_that_of_the_shrunk_and_damped_hessian() -> None:
    x = correlated(4096, 64)
    moments = moments_of(x)
    factor = factorize(moments, BLOCK)
    order = factor.order
    rebuilt = factor.lower.double() @ torch.diag(factor.weight.double()) @ factor.lower.double().T
    diagonal = moments.hessian.diagonal()
    expected = moments.hessian.double()[order][:, order]
    damped = expected.diagonal() + 0.01 * diagonal.double().mean()
    torch.testing.assert_close(rebuilt.diagonal(), damped, rtol=1e-4, atol=0)
    off = ~torch.eye(64, dtype=torch.bool)
    shares = rebuilt[off] / expected[off]
    large = expected[off].abs() > 0.1 * expected[off].abs().max()
    share = shares[large].mean()
    assert 0.9 < share < 1.0
    torch.testing.assert_close(shares[large], share.expand(int(large.sum())), rtol=1e-3, atol=0)


def test_the_target_is_most_of_the_way_to_the_regression() -> None:
    """``W + 3/4 (W * share) R A^-1`` in float64, with the damped Hessian of the factor."""
    torch.manual_seed(4)
    weight, moments = torch.randn(8, 640), moments_of(correlated(2048, 640))
    factor = factorize(moments, BLOCK)
    assert factor.regression is not None and moments.residual is not None
    order, lower = factor.order, factor.lower.double()
    damped = lower @ torch.diag(factor.weight.double()) @ lower.T
    inverse = torch.linalg.inv(damped)
    residual = moments.residual.double()[:, order]
    explained = ((residual @ inverse) * residual).sum(1)
    freedom = float((moments.hessian.double()[order][:, order] * inverse).sum())
    chance = 1.5 * freedom / moments.tokens * moments.residual_energy.double()
    share = ((explained - chance) / explained).clamp(0, 1)
    assert 0 < share.mean() < 1
    torch.testing.assert_close(factor.regression.share.double(), share, rtol=0, atol=0.02)
    kept = weight.double() * factor.regression.share.double()
    expected = weight.double()[:, order] + 0.75 * kept @ residual @ inverse
    found = factor.permute(weight, compensate=True).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - weight.double()[:, order]).abs().max() > 0.01


def test_the_target_gains_nearly_all_on_rounded_inputs_and_shifts_exact_ones_less() -> None:
    """A whole step, itself shortened by damping, shifts exact inputs by 16/9 as much."""
    torch.manual_seed(7)
    weight, moments = torch.randn(64, 256), moments_of(correlated(8192, 256, 0, 12))
    factor = factorize(moments, BLOCK)
    x = correlated(4096, 256, 0, 12)
    rounded, exact = NVFP4().emulate_activations(x, None), x @ weight.T
    moved = factor.restore(factor.permute(weight, compensate=True))
    whole = weight + (moved - weight) / 0.75

    def error(inputs: torch.Tensor, tried: torch.Tensor) -> float:
        return float((inputs @ tried.T - exact).square().sum())

    gain, most = (error(rounded, weight) - error(rounded, w) for w in (moved, whole))
    assert most > 0.2 * error(rounded, weight)
    assert 0.8 * most < gain < most
    assert error(x, moved) / error(x, whole) == pytest.approx(9 / 16, abs=1e-3)


def test_factorizing_takes_one_matrix_beside_the_moments() -> None:
    moments = moments_of(correlated(256, 1536))
    matrix = 4 * 1536**2
    with torch.profiler.profile(profile_memory=True) as profile:
        factor = factorize(moments, BLOCK)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert factor.lower.untyped_storage().nbytes() == matrix
    assert peak < 2.5 * matrix


def test_blocks_stay_together_in_the_order() -> None:
    order = factorize(moments_of(correlated(512, 96)), BLOCK).order
    blocks = order.view(-1, 16).div(16, rounding_mode="floor")
    assert (blocks == blocks[:, :1]).all()
    assert sorted(order.tolist()) == list(range(96))


def brute_force(weight: torch.Tensor, factor: FeedbackFactor, scale: torch.Tensor) -> torch.Tensor:
    """Round column by column in float64, by the definition, with given scales [rows, blocks]."""
    grid = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)
    grid = torch.cat([-grid.flip(0), grid])
    result = torch.zeros_like(weight, dtype=torch.float64)
    weight, lower = weight.double(), factor.lower.double()
    order = factor.order.tolist()
    for position in range(len(order) - 1, -1, -1):
        channel = order[position]
        wanted = weight[:, channel].clone()
        for later in range(position + 1, len(order)):
            error = weight[:, order[later]] - result[:, order[later]]
            wanted += error * lower[later, position]
        steps = wanted / scale[:, channel // 16].double()
        nearest = grid[(steps.unsqueeze(1) - grid).abs().argmin(1)]
        result[:, channel] = nearest * scale[:, channel // 16].double()
    return result


def test_every_column_takes_in_the_errors_of_those_before() -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(24, 160), correlated(2048, 160)
    factor = factorize(moments_of(x), BLOCK, compensate=False)
    tensor_scale = torch.tensor(safe_scale(float(weight.abs().max()), SEARCH_DIVISOR))
    grid = NVFP4Grid(tensor_scale)
    values, codes = round_with_feedback(weight, factor, grid, compensate=False)
    scales = codes.view(torch.float8_e4m3fn)
    expected = brute_force(weight, factor, scales.float() * tensor_scale)
    torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-7)


def test_each_row_has_the_best_of_its_block_scales() -> None:
    """One block: with every other candidate scale the feedback loss is at least as large."""
    torch.manual_seed(2)
    weight, x = torch.randn(40, 16), correlated(2048, 16)
    factor = factorize(moments_of(x), BLOCK, compensate=False)
    tensor_scale = torch.tensor(safe_scale(float(weight.abs().max()), SEARCH_DIVISOR))
    grid = NVFP4Grid(tensor_scale)
    values, codes = round_with_feedback(weight, factor, grid, compensate=False)

    def loss(result: torch.Tensor) -> torch.Tensor:
        error = (weight.double() - result.double())[:, factor.order] @ factor.lower.double()
        return (error.square() * factor.weight.double()).sum(1)

    best = loss(values)
    codes = codes.int()
    for step in (-2, -1, 1, 2):
        other = (codes + step).to(torch.uint8).view(torch.float8_e4m3fn).float() * tensor_scale
        tried = loss(brute_force(weight, factor, other))
        amax_code_near = (codes + step).squeeze(1)
        assert (tried >= best * (1 - 1e-6)).float().mean() > 0.9, (step, amax_code_near)


def test_stored_values_are_exactly_those_chosen() -> None:
    torch.manual_seed(3)
    weight, x = torch.randn(48, 64), correlated(1024, 64)
    rule = rule_for("gptaq", x)
    tensor_scale = torch.tensor(safe_scale(float(weight.abs().max()), SEARCH_DIVISOR))
    assert rule.feedback is not None
    chosen = rule.feedback.round_blocks(weight, NVFP4Grid(tensor_scale), rounded_input=True)
    encoded = NVFP4().encode(weight, rule, measure_error=True)
    stored = NVFP4().decode(encoded.tensors, (48, 64))
    torch.testing.assert_close(stored, chosen[0], rtol=1e-6, atol=0)
    relative = float((stored - weight).norm() / weight.norm())
    assert encoded.relative_error == pytest.approx(relative, rel=1e-5)


@pytest.mark.parametrize(("outliers", "most"), [(0, (0.95, 0.8)), (12, (0.7, 0.6))])
def test_less_error_on_inputs_it_has_not_seen(outliers: int, most: tuple[float, float]) -> None:
    """Held-out W4A4 error falls from max over weighted and gptq to gptaq."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(256, 512, generator=generator)
    seen, held_out = correlated(4096, 512, 0, outliers), correlated(1000, 512, 0, outliers)
    errors = [
        output_error(weight, decoded(weight, rule_for(name, seen)), held_out)
        if name != "max"
        else output_error(weight, NVFP4().decode(
            NVFP4().encode(weight, get_rounding("max")).tensors, (256, 512)), held_out)
        for name in ("max", "weighted", "gptq", "gptaq")
    ]  # fmt: skip
    base = errors[0]
    assert errors[1] < most[0] * base
    assert errors[2] < most[1] * base
    assert errors[3] < errors[2]


def test_gptaq_leaves_layers_with_16_bit_activations_to_gptq() -> None:
    torch.manual_seed(5)
    weight, x = torch.randn(32, 128), correlated(2048, 128, 0, 4)
    both = [decoded(weight, rule_for(name, x), NVFP4W4A16()) for name in ("gptq", "gptaq")]
    assert torch.equal(*both)
    assert not torch.equal(both[0], decoded(weight, rule_for("gptaq", x)))


def test_few_tokens_do_no_harm() -> None:
    """With white inputs and fewer tokens than channels, all correlations are chance."""
    torch.manual_seed(6)
    weight, held_out = torch.randn(128, 256), torch.randn(1000, 256)
    weighted = output_error(weight, decoded(weight, SweepRule("mse")), held_out)
    for tokens in (16, 128, 1024):
        for name in ("gptq", "gptaq"):
            rule = rule_for(name, torch.randn(tokens, 256))
            assert output_error(weight, decoded(weight, rule), held_out) < 1.06 * weighted


@pytest.mark.parametrize("name", ["gptq", "gptaq"])
def test_silent_channels_and_weights(name: str) -> None:
    torch.manual_seed(7)
    x = correlated(1024, 64)
    x[:, 3] = x[:, 20:40] = 0.0
    weight = torch.randn(32, 64)
    weight[5] = 0.0
    rule = rule_for(name, x)
    values = decoded(weight, rule)
    assert torch.isfinite(values).all()
    assert float((values - weight).norm() / weight.norm()) < 0.3
    assert not decoded(torch.zeros(32, 64), rule).any()
    assert torch.isfinite(decoded(weight, rule_for(name, torch.zeros(64, 64)))).all()


def test_without_moments_it_is_weighted() -> None:
    mean_square = torch.rand(64)
    for name in ("gptq", "gptaq"):
        rule = get_rounding(name).for_input(mean_square)
        assert rule.name == "weighted" and not isinstance(rule, GptqRule)


def test_moments_that_are_not_finite_are_refused() -> None:
    moments = moments_of(correlated(512, 64))
    moments.hessian[3, 3] = torch.nan
    with pytest.raises(FormatError, match="calibrate again"):
        factorize(moments, BLOCK)


def test_the_same_bits_on_any_number_of_threads() -> None:
    torch.manual_seed(8)
    weight, x = torch.randn(700, 64), correlated(1024, 64)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(decoded(weight, rule_for("gptq", x)))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_silent_channels_change_nothing_for_the_others() -> None:
    """Channels of zeros do not change the shrinkage of the other channels."""
    alone = moments_of(correlated(512, 64)).hessian
    padded = torch.nn.functional.pad(alone, (0, 448, 0, 448))
    assert shrinkage(padded, 512) == pytest.approx(shrinkage(alone, 512), rel=1e-6)


def test_a_rule_is_freed_as_soon_as_nobody_holds_it() -> None:
    """It holds the Hessian of its input, which is gigabytes for wide layers."""
    gc.disable()
    try:
        rule = rule_for("gptaq", correlated(256, 64))
        NVFP4().encode(torch.randn(32, 64), rule)
        alive = weakref.ref(rule)
        del rule
        assert alive() is None
    finally:
        gc.enable()
