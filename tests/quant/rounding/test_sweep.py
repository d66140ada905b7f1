"""The scale search against brute force in float64, and what it gains."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.base import safe_scale
from nvfp4_foundry.quant.formats.float8_scales import searched_e4m3_scale
from nvfp4_foundry.quant.formats.nvfp4_scales import SEARCH_DIVISOR
from nvfp4_foundry.quant.rounding import MaxRule, SweepRule, get_rounding
from nvfp4_foundry.quant.rounding.sweep import weights_of_input

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], dtype=torch.float64)
NVFP4 = get_format("nvfp4")
FLOAT8 = get_format("float8_e4m3fn")


def student_t(rows: int, columns: int) -> torch.Tensor:
    """Student-t with 4 degrees of freedom: the heavy tails of trained weights."""
    chi = torch.randn(4, rows, columns).square().sum(0) / 4
    return 0.02 * torch.randn(rows, columns) / chi.sqrt()


def weight_error(rule: SweepRule | MaxRule, weight: torch.Tensor) -> float:
    encoded = NVFP4.encode(weight, rule, measure_error=True)
    assert encoded.relative_error is not None
    return encoded.relative_error**2


def least_errors(weight: torch.Tensor, channel_weights: torch.Tensor | None) -> torch.Tensor:
    """Least squared error of every block over ten codes around the max rule's, in float64."""
    blocks = weight.double().reshape(-1, 16)
    counts = torch.ones(weight.shape[1]) if channel_weights is None else channel_weights
    counts = counts.double().repeat(weight.shape[0]).reshape(-1, 16)
    tensor_scale = safe_scale(float(weight.abs().max()), SEARCH_DIVISOR)
    codes = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    start = (blocks.abs().amax(1) / 6 / tensor_scale).float().to(torch.float8_e4m3fn)
    least = torch.full((len(blocks),), torch.inf, dtype=torch.float64)
    for step in range(-4, 6):
        index = (start.view(torch.uint8).long() + step).clamp(0, 126)
        scale = (codes[index] * tensor_scale).unsqueeze(1)
        nearest = torch.where(
            scale > 0, E2M1[((blocks.abs() / scale).unsqueeze(-1) - E2M1).abs().argmin(-1)], 0.0
        )
        error = ((nearest * scale - blocks.abs()).square() * counts).sum(1)
        least = torch.minimum(least, error)
    return least


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(40, 96), (17, 33), (128, 4112)], ids=str)
def test_every_block_has_the_least_error_there_is(
    shape: tuple[int, int], weighted: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    weight = student_t(*shape).to(dtype)
    weight[3] = 0
    weight[5] *= 1e-6
    channels = torch.rand(shape[1]) * 30 + 0.1 if weighted else None
    rule = SweepRule("weighted", channels)
    decoded = NVFP4.decode(NVFP4.encode(weight, rule).tensors, shape).double()
    counts = torch.ones(shape[1]) if channels is None else channels
    squared = (decoded - weight.double()).square() * counts.double()
    missing = -shape[1] % 16
    pad = torch.nn.functional.pad
    found = pad(squared, (0, missing)).reshape(-1, 16).sum(1)
    padded = None if channels is None else pad(channels, (0, missing))
    wanted = least_errors(pad(weight, (0, missing)), padded)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "bar"),
    [(lambda: 0.02 * torch.randn(512, 1024), 0.75), (lambda: student_t(512, 1024), 0.82)],
    ids=["gaussian", "student-t"],
)
def test_squared_weight_error_against_the_max_rule(
    make: Callable[[], torch.Tensor], bar: float
) -> None:
    torch.manual_seed(1)
    weight = make()
    assert weight_error(SweepRule("mse"), weight) <= bar * weight_error(MaxRule(), weight)


def output_error(rule: SweepRule | MaxRule, weight: torch.Tensor, inputs: torch.Tensor) -> float:
    """Squared relative output error with quantized activations (W4A4)."""
    decoded = NVFP4.decode(NVFP4.encode(weight, rule).tensors, tuple(weight.shape))
    exact = inputs @ weight.T
    made = NVFP4.emulate_activations(inputs, None) @ decoded.T
    return float(((made - exact).norm() / exact.norm()) ** 2)


def test_weighting_helps_the_output_where_channels_differ() -> None:
    """Twelve channels are 25 times larger than the rest, in calibration and held-out inputs."""
    torch.manual_seed(2)
    weight = student_t(512, 1024)
    channels = torch.ones(1024)
    channels[torch.randperm(1024)[:12]] = 25
    calibration, held_out = (torch.randn(n, 1024) * channels for n in (2048, 512))
    rule = get_rounding("weighted").for_input(calibration.square().mean(0))
    assert isinstance(rule, SweepRule)
    base = output_error(MaxRule(), weight, held_out)
    assert output_error(rule, weight, held_out) <= 0.7 * base
    assert output_error(SweepRule("mse"), weight, held_out) <= 0.95 * base
    assert weight_error(rule, weight) <= weight_error(MaxRule(), weight)


def test_only_weighted_looks_at_the_input() -> None:
    mean_square = torch.rand(64)
    weight = student_t(32, 64)
    plain = NVFP4.encode(weight, get_rounding("mse").for_input(mean_square)).tensors
    without = NVFP4.encode(weight, get_rounding("weighted").for_input(None)).tensors
    assert torch.equal(plain["weight"], without["weight"])
    assert get_rounding("max").for_input(mean_square).name == "max"


def test_channel_weights_are_relative_and_never_zero() -> None:
    weights = weights_of_input(torch.tensor([0.0, 1.0, 3.0]))
    assert weights.tolist() == pytest.approx([0.3, 1.05, 2.55])
    assert weights_of_input(torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["mse", "weighted"])
def test_zero_tiny_and_huge_weights(name: str) -> None:
    rule = get_rounding(name)
    assert not NVFP4.decode(NVFP4.encode(torch.zeros(32, 64), rule).tensors, (32, 64)).any()
    for magnitude in (1e-38, 1e-30, 1e30, 3e38):
        weight = torch.randn(32, 64).clamp_(-1, 1) * magnitude
        decoded = NVFP4.decode(NVFP4.encode(weight, rule).tensors, (32, 64))
        assert bool(torch.isfinite(decoded).all())


@pytest.mark.parametrize("name", ["mse", "weighted"])
def test_float8_never_clips_a_loud_row(name: str) -> None:
    """The search must not favour small values over a row that is far larger."""
    torch.manual_seed(3)
    weight = 0.02 * torch.randn(4096, 1024)
    weight[1] = 10.0
    chosen = FLOAT8.encode(weight, get_rounding(name), measure_error=True)
    plain = FLOAT8.encode(weight, get_rounding("max"), measure_error=True)
    assert torch.equal(chosen.tensors["weight_scale"], plain.tensors["weight_scale"])
    assert chosen.relative_error == plain.relative_error


def float8_error(weight: torch.Tensor, scale: float, channels: torch.Tensor | None) -> float:
    """Squared error at a scale, by the nearest of all E4M3 values, in float64."""
    grid = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).double()
    values = weight.double().abs() / scale
    above = torch.searchsorted(grid, values).clamp(1, 126)
    gap = torch.minimum((grid[above] - values).abs(), (values - grid[above - 1]).abs())
    squared = (gap * scale).square()
    return float((squared if channels is None else squared * channels).sum())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["gauss", "student", "uniform", "few"])
def test_float8_has_the_best_of_eight_scales(kind: str, weighted: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    weights = {
        "gauss": torch.randn(60, 100),
        "student": student_t(60, 100),
        "uniform": torch.rand(60, 100) * 3e-4,
        "few": torch.randn(1, 3),
    }
    weight = weights[kind].to(dtype)
    channels = torch.rand(weight.shape[1]) * 9 + 0.1 if weighted else None
    scale = searched_e4m3_scale(weight, float(weight.abs().max()), channels)
    smallest = safe_scale(float(weight.abs().max()), 448.0)
    errors = [float8_error(weight, smallest * 2 ** (k / 8), channels) for k in range(8)]
    assert scale >= smallest
    assert float8_error(weight, scale, channels) <= min(errors) * (1 + 1e-5)


def test_float8_gains_most_where_the_largest_values_are_many() -> None:
    torch.manual_seed(6)
    uniform = torch.rand(512, 512) - 0.5
    chosen = FLOAT8.encode(uniform, get_rounding("mse"), measure_error=True).relative_error
    plain = FLOAT8.encode(uniform, get_rounding("max"), measure_error=True).relative_error
    assert chosen is not None
    assert plain is not None
    assert (chosen / plain) ** 2 == pytest.approx(0.853, abs=0.01)


@pytest.mark.parametrize("loud", ["row", "column", "last row"])
@pytest.mark.parametrize("shape", [(4096, 1024), (3000, 512), (40, 65536)], ids=str)
def test_float8_samples_every_row_and_column(shape: tuple[int, int], loud: str) -> None:
    torch.manual_seed(7)
    weight = 0.02 * torch.randn(shape).bfloat16()
    index = {"row": (7,), "column": (slice(None), 9), "last row": (-1,)}[loud]
    weight[index] = 10.0  # exact at the max rule's scale, and at no other of the eight
    for rule in (SweepRule("mse"), SweepRule("mse", torch.ones(shape[1]))):
        assert searched_e4m3_scale(weight, 10.0, rule.channel_weights) == safe_scale(10.0, 448.0)


@pytest.mark.parametrize("name", ["mse", "weighted"])
@pytest.mark.parametrize("magnitude", [0.0, 1e-44, 1e-38, 1e-30, 1e30, 3e38])
def test_float8_of_zero_tiny_and_huge_weights(name: str, magnitude: float) -> None:
    weight = torch.linspace(-1, 1, 32 * 64).view(32, 64) * magnitude
    decoded = FLOAT8.decode(FLOAT8.encode(weight, get_rounding(name)).tensors, (32, 64))
    assert bool(torch.isfinite(decoded).all())
    if magnitude >= 1e-30:
        change = (decoded.double() - weight.double()).norm()
        assert float(change) < 0.04 * float(weight.double().norm())


def test_float8_of_a_transposed_weight_and_on_one_thread() -> None:
    torch.manual_seed(8)
    weight = torch.rand(700, 900)
    rule = SweepRule("weighted", torch.rand(700) + 1)
    scale = searched_e4m3_scale(weight.T, 1.0, rule.channel_weights)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert searched_e4m3_scale(weight.T.contiguous(), 1.0, rule.channel_weights) == scale
    finally:
        torch.set_num_threads(threads)
