"""Banks of experts: each expert is stored as the 2-D format stores it."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.formats import FORMATS, ExpertBank, for_shape, get_format
from nvfp4_foundry.quant.rounding import get_rounding

BANKS = [name for name, fmt in FORMATS.items() if fmt.loads_in_banks]
SHAPE = (3, 128, 256)


def bank(name: str) -> tuple[torch.Tensor, ExpertBank]:
    """Return a weight whose experts differ in size, and its format."""
    generator = torch.Generator().manual_seed(3)
    sizes = torch.tensor([0.01, 1.0, 30.0]).view(3, 1, 1)
    fmt = for_shape(get_format(name), SHAPE)
    assert isinstance(fmt, ExpertBank)
    return torch.randn(SHAPE, generator=generator) * sizes, fmt


@pytest.mark.parametrize("name", BANKS)
def test_each_expert_is_as_if_alone(name: str) -> None:
    weight, fmt = bank(name)
    encoded = fmt.encode(weight, get_rounding("mse"), measure_error=True)
    decoded = fmt.decode(encoded.tensors, SHAPE)
    for expert in range(3):
        alone = fmt.each.encode(weight[expert], get_rounding("mse"))
        for suffix, tensor in alone.tensors.items():
            assert torch.equal(encoded.tensors[suffix][expert], tensor)
        assert torch.equal(decoded[expert], fmt.each.decode(alone.tensors, SHAPE[1:]))
    assert torch.equal(fmt.decode(encoded.tensors, SHAPE, slice(1, 2)), decoded[1:2])
    error = float((decoded - weight).double().norm() / weight.double().norm())
    assert encoded.relative_error == pytest.approx(error, rel=1e-3)
    assert error < fmt.error_bound


@pytest.mark.parametrize("name", BANKS)
def test_specs_and_marker(name: str) -> None:
    weight, fmt = bank(name)
    encoded = fmt.encode(weight, get_rounding("max"))
    specs = fmt.tensor_specs(SHAPE, torch.bfloat16)
    assert {s: (t.shape, t.dtype) for s, t in encoded.tensors.items()} == {
        s: (torch.Size(spec.shape), spec.dtype) for s, spec in specs.items()
    }
    marker = fmt.marker_for(SHAPE)
    assert marker == {**(fmt.each.marker_for(SHAPE[1:]) or {}), "num_experts": 3}
    assert fmt.shape_of(specs["weight"].shape, (3, 128)) == SHAPE
    assert fmt.activation_divisor is None  # a bank reads no static scale


def test_what_comfyui_misreads_is_refused() -> None:
    rotated = for_shape(get_format("int8_convrot"), SHAPE)
    assert "does not decode banks" in (rotated.refusal(SHAPE) or "")
    assert "in_features % 32" in (
        for_shape(get_format("nvfp4"), (2, 8, 40)).refusal((2, 8, 40)) or ""
    )


def test_only_banks_change() -> None:
    fmt = get_format("nvfp4")
    assert for_shape(fmt, (8, 32)) is fmt
    assert for_shape(get_format("bf16"), SHAPE) is get_format("bf16")
    banked = for_shape(fmt, SHAPE)
    assert for_shape(banked, SHAPE) is banked
    assert banked.stores_like(fmt, SHAPE) and banked.stores_like(get_format("nvfp4_w4a16"), SHAPE)
    assert not banked.stores_like(get_format("float8_e4m3fn"), SHAPE)
