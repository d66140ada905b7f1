"""NVFP4 with a factor per input channel: what is stored, and what it decodes to."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.formats import format_of_marker, get_format
from nvfp4_foundry.quant.formats.nvfp4 import PRE_QUANT_SCALE
from nvfp4_foundry.quant.formats.nvfp4_smooth import NVFP4Smooth
from nvfp4_foundry.quant.rounding import MaxRule, get_rounding

from tests.helpers.conversions import bits

PLAIN, SMOOTH = get_format("nvfp4"), NVFP4Smooth()
SHAPE = (24, 64)
WEIGHT = 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
FACTORS = torch.exp(torch.randn(64, generator=torch.Generator().manual_seed(1))).bfloat16().float()


def test_factors_tell_it_from_plain_nvfp4() -> None:
    marker = {"format": "nvfp4"}
    assert format_of_marker(marker) is format_of_marker(marker, {"weight": SHAPE})
    found = format_of_marker(marker, {"weight": SHAPE, PRE_QUANT_SCALE: (64,)})
    assert found is not None and found.name == SMOOTH.name
    in_16_bits = {**marker, "full_precision_matrix_mult": True}
    found = format_of_marker(in_16_bits, {"weight": SHAPE, PRE_QUANT_SCALE: (64,)})
    assert found is not None and found.name == "nvfp4_w4a16"


def test_with_factors_of_one_it_is_nvfp4_bit_for_bit() -> None:
    rule = get_rounding("mse")
    plain = PLAIN.encode(WEIGHT, rule, measure_error=True)
    smooth = SMOOTH.encode(WEIGHT, rule, measure_error=True)
    assert smooth.relative_error == plain.relative_error
    assert torch.equal(smooth.tensors[PRE_QUANT_SCALE], torch.ones(64))
    for suffix, tensor in plain.tensors.items():
        assert torch.equal(bits(smooth.tensors[suffix]), bits(tensor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_divided_weight_is_stored_and_the_factors_multiply_it_back(dtype: torch.dtype) -> None:
    weight = WEIGHT.to(dtype)
    encoded = SMOOTH.encode_smoothed(weight, FACTORS, MaxRule(), measure_error=True)
    specs = SMOOTH.tensor_specs(SHAPE, dtype)
    assert {n: (tuple(t.shape), t.dtype) for n, t in encoded.tensors.items()} == {
        n: (spec.shape, spec.dtype) for n, spec in specs.items()
    }
    by_hand = PLAIN.encode(weight.float() / FACTORS, MaxRule()).tensors
    wanted = PLAIN.decode(by_hand, SHAPE) * FACTORS
    found = SMOOTH.decode(encoded.tensors, SHAPE)
    assert torch.equal(found, wanted)
    assert torch.equal(SMOOTH.decode(encoded.tensors, SHAPE, slice(8, 20)), wanted[8:20])
    error = (wanted.double() - weight.double()).norm() / weight.double().norm()
    assert encoded.relative_error == pytest.approx(float(error), rel=1e-9)


def test_comfyuis_older_versions_and_banks_do_not_get_it() -> None:
    assert SMOOTH.needs_comfyui == (0, 33)
    assert not SMOOTH.loads_in_banks and PLAIN.loads_in_banks
