"""Error feedback for ``asym_w4a8_int8`` against float64, and its gain on held-out inputs."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.codebook import gaussian_codebook
from nvfp4_foundry.quant.formats.codebook_rows import unpack_codes
from nvfp4_foundry.quant.formats.rotation import hadamard
from nvfp4_foundry.quant.rounding import SecondMoments, get_rounding
from nvfp4_foundry.quant.rounding.feedback import factorize

from tests.quant.rounding.test_gptq import correlated, moments_of

FMT = get_format("asym_w4a8_int8")
GROUP, BLOCK = 256, 16
_SHAPE = (24, 512)


def rotation(columns: int) -> torch.Tensor:
    """The whole rotation as one matrix, float64."""
    return torch.block_diag(*[hadamard(GROUP).double()] * (columns // GROUP))


def weight_of(shape: tuple[int, int] = _SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)) * 0.02


def encoded(weight: torch.Tensor, name: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    rule = get_rounding(name).for_input(x.square().mean(0), moments_of(x))
    return dict(FMT.encode(weight, rule).tensors)


def output_error(weight: torch.Tensor, name: str, seen: torch.Tensor, new: torch.Tensor) -> float:
    values = FMT.decode(encoded(weight, name, seen), tuple(weight.shape))
    exact = new @ weight.T
    rounded = FMT.emulate_activations(new, None)
    return float((rounded @ values.T - exact).square().sum() / exact.square().sum())


def test_the_hessian_is_that_of_the_exact_rotated_input() -> None:
    x = correlated(4096, 512)
    found = moments_of(x).rotated(GROUP)
    rotated = x.double() @ rotation(512)
    hessian = rotated.T @ rotated / len(x)
    mean = hessian.diagonal().mean()
    torch.testing.assert_close(found.hessian.double(), hessian, rtol=0, atol=0.01 * float(mean))
    torch.testing.assert_close(found.mean.double(), rotated.mean(0), rtol=0, atol=1e-5)
    assert found.residual is None
    torch.testing.assert_close(found.hessian, found.hessian.T, rtol=0, atol=1e-5)


def test_without_a_residual_the_hessian_of_the_rounded_input_is_rotated() -> None:
    plain = moments_of(correlated(1024, 512))
    plain = SecondMoments(
        plain.hessian, None, plain.residual_energy, plain.mean, plain.mean_rounded, plain.tokens
    )
    turn = rotation(512)
    expected = turn.T @ plain.hessian.double() @ turn
    torch.testing.assert_close(plain.rotated(GROUP).hessian.double(), expected, rtol=0, atol=1e-5)


def test_every_column_takes_in_the_errors_of_those_before() -> None:
    """By the definition, column by column in float64, with the scales that were chosen."""
    weight, x = weight_of(), correlated(2048, 512)
    stored = encoded(weight, "gptq", x)
    assert torch.equal(stored["weight_codebook"], gaussian_codebook())
    factor = factorize(moments_of(x).rotated(GROUP), BLOCK, compensate=False)
    scales = stored["weight_s_rel"].double().repeat_interleave(BLOCK, 1)
    rows = stored["weight_s_channel"].double().unsqueeze(1)
    target = weight.double() @ rotation(512) / rows
    levels = scales.unsqueeze(2) * stored["weight_codebook"].double()
    levels = levels.round().clamp(-127, 127)
    order, lower = factor.order, factor.lower.double()
    errors, result = torch.zeros(_SHAPE).double(), torch.zeros(_SHAPE).double()
    for position in range(len(order) - 1, -1, -1):
        channel = order[position]
        later = order[position + 1 :]
        wanted = target[:, channel] + errors[:, later] @ lower[position + 1 :, position]
        own = levels[:, channel]
        nearest = (own - wanted.unsqueeze(1)).abs().argmin(1, keepdim=True)
        result[:, channel] = own.gather(1, nearest).squeeze(1)
        errors[:, channel] = target[:, channel] - result[:, channel]
    found = unpack_codes(stored["weight"], stored["weight_s_rel"], stored["weight_codebook"])
    # float32 decides a few values that lie between two levels otherwise, and then those after them
    assert (found.double() == result).double().mean() > 0.98


def test_each_block_has_a_scale_of_little_loss() -> None:
    """Halving or doubling all scales of one group's blocks never helps the loss of a row."""
    weight, x = weight_of((16, 256)), correlated(2048, 256)
    hessian = moments_of(x).rotated(GROUP).hessian.double()
    stored = encoded(weight, "gptq", x)
    target = weight.double() @ rotation(256)

    def loss(scales: torch.Tensor) -> torch.Tensor:
        rows = stored["weight_s_channel"].double().view(-1, 1, 1)
        levels = scales.unsqueeze(2) * stored["weight_codebook"].double()
        levels = (levels.round().clamp(-127, 127) * rows).repeat_interleave(BLOCK, 1)
        nearest = (levels - target.unsqueeze(2)).abs().argmin(2, keepdim=True)
        error = target - levels.gather(2, nearest).squeeze(2)
        return ((error @ hessian) * error).sum(1)

    values = FMT.decode(stored, (16, 256)).double() @ rotation(256)
    best = ((values - target) @ hessian * (values - target)).sum(1)
    chosen = stored["weight_s_rel"].double()
    for factor in (0.5, 1.0, 2.0):
        assert (best < loss(chosen * factor)).all()


@pytest.mark.parametrize("outliers", [0, 8])
def test_held_out_outputs_are_much_better(outliers: int) -> None:
    seen, new = (correlated(tokens, 512, 1, outliers) for tokens in (8192, 2048))
    weight = weight_of((96, 512))
    plain, better = (output_error(weight, name, seen, new) for name in ("weighted", "gptq"))
    assert better < 0.3 * plain


def test_gptaq_is_gptq_because_activations_keep_8_bits() -> None:
    weight, x = weight_of(), correlated(1024, 512)
    one, other = encoded(weight, "gptq", x), encoded(weight, "gptaq", x)
    assert all(torch.equal(one[s].view(torch.uint8), other[s].view(torch.uint8)) for s in one)


def test_one_rule_serves_formats_in_both_bases() -> None:
    weight, x = weight_of(), correlated(1024, 512)
    rule = get_rounding("gptq").for_input(x.square().mean(0), moments_of(x))
    formats = [get_format(name) for name in ("nvfp4", "asym_w4a8_int8")]
    first = [fmt.encode(weight, rule).tensors for fmt in formats]
    again = [fmt.encode(weight, rule).tensors for fmt in formats]
    for one, other in zip(first, again, strict=True):
        for suffix, tensor in one.items():
            assert torch.equal(tensor.float(), other[suffix].float()), suffix


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30])
def test_extreme_weights_keep_their_precision(factor: float) -> None:
    x = correlated(1024, 512)
    weight = weight_of() * factor
    rule = get_rounding("gptq").for_input(x.square().mean(0), moments_of(x))
    found = FMT.encode(weight, rule, measure_error=True)
    assert found.relative_error is not None and found.relative_error < 0.15
    values = FMT.decode(found.tensors, _SHAPE)
    assert torch.isfinite(values).all()
    norm = float(weight.double().norm()) or 1.0
    measured = float((values.double() - weight.double()).norm()) / norm
    assert measured == pytest.approx(found.relative_error, rel=1e-4, abs=1e-6)
