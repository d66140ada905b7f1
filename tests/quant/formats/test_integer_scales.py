"""Scales of integers against brute force in float64, and what they gain."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.integer_scales import row_scales_by
from nvfp4_foundry.quant.formats.rotation import hadamard
from nvfp4_foundry.quant.rounding import MaxRule, SweepRule

MSE = SweepRule("mse")
STEPS = {127.0: [-s / 70 for s in range(16)], 7.0: [-s / 12 for s in range(13)]}


def least(
    rows: torch.Tensor, largest: float, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's least squared error over all candidates, and that of the max rule."""
    rows = rows.double()
    counts = torch.ones(rows.shape[1]) if weights is None else weights
    errors = []
    for step in STEPS[largest]:
        scale = rows.abs().amax(1, keepdim=True) / largest * 2.0**step
        stored = (rows / scale).round().clamp(-largest, largest) * scale
        errors.append((stored - rows).square() @ counts.double())
    return torch.stack(errors).amin(0), errors[0]


def chosen(
    rows: torch.Tensor, largest: float, rule: SweepRule, group: int | None = None
) -> torch.Tensor:
    """Return the scales of rows."""
    return row_scales_by(rule, largest, group, rows.device)(rows, rows.abs().amax(1))


@pytest.mark.parametrize("largest", [127.0, 7.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_row_has_the_least_error_there_is(largest: float, weighted: bool) -> None:
    torch.manual_seed(0)
    rows = torch.randn(40, 300) * torch.logspace(-20, 15, 40).unsqueeze(1)
    rows[3, :7] *= 9
    weights = torch.rand(300) * 20 if weighted else None
    scales = chosen(rows, largest, SweepRule("weighted", weights))
    stored = (rows / scales.unsqueeze(1)).round().clamp(-largest, largest) * scales.unsqueeze(1)
    counts = torch.ones(300) if weights is None else weights
    error = (stored.double() - rows.double()).square() @ counts.double()
    best, plain = least(rows, largest, weights)
    assert torch.allclose(error, best, rtol=1e-4)
    assert float((best / plain).mean()) < (0.85 if largest == 7 else 0.99)


def test_rotated_channels_weigh_as_much_as_their_group() -> None:
    """An input diagonal in the source's basis has the same energy in every rotated channel."""
    energy = torch.rand(64) * 10
    basis = hadamard(16).double()
    rotated = [
        (basis.T @ torch.diag(part.double()) @ basis).diagonal() for part in energy.view(4, 16)
    ]
    rows = torch.randn(8, 64)
    by_hand = SweepRule("weighted", torch.cat(rotated).float())
    scales = chosen(rows, 7.0, SweepRule("weighted", energy), 16)
    assert torch.equal(scales, chosen(rows, 7.0, by_hand))


@pytest.mark.parametrize("outlier", [1.0, 10.0, 60.0])
def test_one_scale_for_a_tensor(outlier: float) -> None:
    """The scale is at most slightly worse than the best one, and far better than the max rule's."""
    torch.manual_seed(1)
    weight = torch.randn(64, 200)
    weight[5, 7] = 4.5 * outlier
    fmt = get_format("int8_tensorwise")

    def error(rule: MaxRule | SweepRule) -> float:
        decoded = fmt.decode(fmt.encode(weight, rule).tensors, (64, 200))
        return float((decoded - weight).square().sum())

    any_scale = min(
        float(((weight / s).round().clamp(-128, 127) * s - weight).square().sum())
        for s in (float(weight.abs().max()) / 127 * r for r in torch.linspace(0.01, 1, 400))
    )
    assert any_scale * 0.999 <= error(MSE) <= 1.05 * any_scale
    assert error(MSE) <= error(MaxRule())


def test_zero_and_tiny_weights_have_finite_scales() -> None:
    for name in ("int8_tensorwise", "int8_rowwise", "int8_convrot", "convrot_w4a4"):
        fmt = get_format(name)
        for magnitude in (0.0, 1e-38, 1e38):
            weight = torch.randn(8, 256).clamp_(-1, 1) * magnitude
            weight[3] = 0
            tensors = fmt.encode(weight, MSE, measure_error=True).tensors
            assert bool(tensors["weight_scale"].isfinite().all())
            assert bool((tensors["weight_scale"] > 0).all())
            if "convrot" not in name:
                assert bool(fmt.decode(tensors, (8, 256)).isfinite().all())


@pytest.mark.parametrize(
    ("name", "least_gain"),
    [("convrot_w4a4", 0.35), ("int8_tensorwise", 0.15), ("int8_rowwise", 0.01)],
)
def test_what_the_search_gains(name: str, least_gain: float) -> None:
    torch.manual_seed(2)
    weight = torch.randn(256, 1024)
    fmt = get_format(name)
    plain = fmt.encode(weight, MaxRule(), measure_error=True).relative_error or 0.0
    searched = fmt.encode(weight, MSE, measure_error=True).relative_error or 0.0
    assert (searched / plain) ** 2 < 1 - least_gain


def test_formats_without_a_choice_are_the_same_with_any_rule() -> None:
    weight = torch.randn(64, 256)
    for name in ("mxfp8", "float8_e5m2"):
        fmt = get_format(name)
        assert not fmt.has_scale_choice
        plain, searched = fmt.encode(weight, MaxRule()), fmt.encode(weight, MSE)
        for suffix, tensor in plain.tensors.items():
            other = searched.tensors[suffix]
            assert torch.equal(tensor.float(), other.float())
