"""Factors per channel are kept only where held-out inputs get better."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.conversion.choose_encoding import ChosenEncoding, choose_encoding
from nvfp4_foundry.quant.conversion.encode_weight import encode_weight, scaled_input_scale
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.nvfp4 import PRE_QUANT_SCALE
from nvfp4_foundry.quant.hardware.emulation import InputRounding

from tests.helpers.observed_inputs import LOUD, WIDTH, loud, observe, weight_of, white

PLAIN, SMOOTH = get_format("nvfp4"), get_format("nvfp4_smooth")


def squared_error(x: torch.Tensor, seen: torch.Tensor, chosen: ChosenEncoding) -> float:
    tensors, wanted = chosen.encoded.tensors, x @ weight_of().T
    fmt = SMOOTH if PRE_QUANT_SCALE in tensors else PLAIN
    decoded = fmt.decode(tensors, tuple(weight_of().shape))
    return float((seen @ decoded.T - wanted).square().sum() / wanted.square().sum())


@pytest.mark.parametrize("rounding", ["max", "weighted", "gptq", "gptaq"])
def test_loud_channels_are_made_quieter_and_unseen_outputs_better(rounding: str) -> None:
    observed = observe(loud())
    plain = choose_encoding(weight_of(), PLAIN, rounding, observed, None)
    chosen = encode_weight(weight_of(), SMOOTH, rounding, observed, None)
    assert "with factors per channel: error" in chosen.reason
    factors = chosen.encoded.tensors[PRE_QUANT_SCALE]
    assert torch.equal(factors, factors.bfloat16().float())
    quiet = factors.index_fill(0, LOUD, torch.inf)
    assert float(factors[LOUD].max()) < float(quiet.min())
    # tokens of a prompt that neither the moments nor the held-out rows know
    x = loud()(500)
    before = squared_error(x, PLAIN.emulate_activations(x, None), plain)
    after = squared_error(x, InputRounding(SMOOTH, None, factors).apply(x), chosen)
    assert after < 0.9 * before
    assert chosen.error is not None and plain.error is not None
    assert chosen.error.w4a4 < plain.error.w4a4


def test_the_reported_error_is_that_of_the_runtime() -> None:
    """The runtime multiplies by the factors, rounds, and multiplies with the stored weight."""
    observed = observe(loud())
    chosen = encode_weight(weight_of(), SMOOTH, "gptq", observed, 0.5)
    scale = scaled_input_scale(0.5, chosen, observed)
    tensors = dict(chosen.encoded.tensors)
    factors = tensors.pop(PRE_QUANT_SCALE)
    stored = PLAIN.decode(tensors, tuple(weight_of().shape))
    rows = observed.held_out.rows
    seen = PLAIN.emulate_activations(rows * factors, scale)
    wanted = rows @ weight_of().T
    error = float((seen @ stored.T - wanted).norm() / wanted.norm())
    assert chosen.error is not None and chosen.error.w4a4 == pytest.approx(error, rel=1e-4)


def test_a_static_scale_keeps_its_headroom() -> None:
    observed = observe(loud())
    chosen = encode_weight(weight_of(), SMOOTH, "gptq", observed, 1.0)
    factors = chosen.encoded.tensors[PRE_QUANT_SCALE]
    x = torch.cat([loud()(10 * run + call) for run in range(2) for call in range(4)])
    ratio = float((x * factors).abs().max() / x.abs().max())
    assert ratio < 0.5
    assert scaled_input_scale(1.0, chosen, observed) == pytest.approx(ratio, rel=1e-5)
    assert scaled_input_scale(None, chosen, observed) is None
    plain = choose_encoding(weight_of(), PLAIN, "gptq", observed, 1.0)
    assert scaled_input_scale(1.0, plain, observed) == 1.0


def test_alike_channels_keep_factors_of_one() -> None:
    observed = observe(white)
    plain = choose_encoding(weight_of(), PLAIN, "gptq", observed, None)
    chosen = encode_weight(weight_of(), SMOOTH, "gptq", observed, None)
    assert torch.equal(chosen.encoded.tensors[PRE_QUANT_SCALE], torch.ones(WIDTH))
    assert "no factors per channel: error" in chosen.reason
    for suffix, tensor in plain.encoded.tensors.items():
        assert torch.equal(chosen.encoded.tensors[suffix].float(), tensor.float())


def test_factors_that_fail_on_other_prompts_are_not_kept() -> None:
    """The held-out prompt has other loud channels than those of the calibration."""

    def draw(seed: int) -> torch.Tensor:
        return loud()(seed) if seed < 10 else loud()(seed).roll(7, 1)

    chosen = encode_weight(weight_of(), SMOOTH, "gptq", observe(draw), None)
    before = choose_encoding(weight_of(), PLAIN, "gptq", observe(draw), None)
    assert chosen.error is not None and before.error is not None
    assert chosen.error.w4a4 <= before.error.w4a4


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"moments_budget_bytes": 0}, "no Hessian"), ({"rows": 0}, "too few sampled rows")],
)
def test_without_evidence_there_are_no_factors(settings: dict[str, int], why: str) -> None:
    chosen = encode_weight(weight_of(), SMOOTH, "gptq", observe(loud(), **settings), None)
    assert torch.equal(chosen.encoded.tensors[PRE_QUANT_SCALE], torch.ones(WIDTH))
    assert f"no factors per channel: {why}" in chosen.reason
    unseen = encode_weight(weight_of(), SMOOTH, "gptq", None, None)
    assert torch.equal(unseen.encoded.tensors[PRE_QUANT_SCALE], torch.ones(WIDTH))
