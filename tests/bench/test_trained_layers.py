"""Trained layers compute with what a checkpoint stores."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.hardware.emulation import InputRounding
from nvfp4_foundry.quant.rounding import MaxRule
from trained_layers import RATES, SUFFIXES, TrainedLinear

ROWS, COLUMNS = 40, 96
NVFP4 = get_format("nvfp4")


def stored_layer() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    encoded = NVFP4.encode(torch.randn(ROWS, COLUMNS), MaxRule())
    return {**encoded.tensors, "bias": torch.randn(ROWS).bfloat16()}


def layer() -> TrainedLinear:
    return TrainedLinear((ROWS, COLUMNS), stored_layer(), InputRounding(NVFP4, 0.002))


def weight_of(stored: dict[str, torch.Tensor]) -> torch.Tensor:
    return NVFP4.decode(stored, (ROWS, COLUMNS))


def test_an_untrained_layer_stores_what_it_started_from() -> None:
    stored, first = layer().stored(torch.bfloat16), stored_layer()
    for suffix in SUFFIXES:
        assert stored[suffix].dtype == first[suffix].dtype
        if suffix != "weight":  # a zero may change its sign
            assert torch.equal(stored[suffix].float(), first[suffix].float())
    assert torch.equal(weight_of(stored), weight_of(first))


@pytest.mark.parametrize("kind", RATES)
def test_a_trained_layer_comes_nearer_and_computes_with_what_it_stores(kind: str) -> None:
    trained = layer()
    x, target = torch.randn(256, COLUMNS), torch.randn(256, ROWS)
    parameter = getattr(trained, kind)
    adam = torch.optim.Adam([parameter], lr=0.05)
    errors = []
    for _ in range(20):
        adam.zero_grad()
        error = (trained(x) - target).square().mean()
        error.backward()
        adam.step()
        errors.append(float(error.detach()))
    assert errors[-1] < errors[0]
    stored = trained.stored(torch.float32)
    moved = not torch.equal(weight_of(stored), weight_of(stored_layer()))
    assert moved == (kind != "biases")
    expected = NVFP4.emulate_activations(x, 0.002) @ weight_of(stored).T + stored["bias"]
    torch.testing.assert_close(trained(x), expected, rtol=1e-5, atol=1e-5)
