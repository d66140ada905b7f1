"""NVFP4 against comfy-kitchen bit for bit, and against float64 by hand."""

from __future__ import annotations

import comfy_kitchen
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.e2m1 import E2M1Workspace, unpack
from nvfp4_foundry.quant.formats.nvfp4 import block_amax
from nvfp4_foundry.quant.rounding import MaxRule, get_rounding

SHAPES = [(1, 16), (17, 33), (130, 80), (256, 256), (1040, 528), (16, 16), (3, 1), (129, 4112)]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def reference(weight: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return comfy_kitchen.quantize_nvfp4(weight, scale, pad_16x=True)


def assert_identical(weight: torch.Tensor) -> None:
    encoded = get_format("nvfp4").encode(weight, MaxRule()).tensors
    codes, scales = reference(weight, encoded["weight_scale_2"])
    assert torch.equal(encoded["weight"], codes)
    assert torch.equal(encoded["weight_scale"].view(torch.uint8), scales.view(torch.uint8))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_equal_comfy_kitchen(shape: tuple[int, int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(hash(shape) % 1000)
    weight = torch.randn(shape, generator=generator)
    weight *= torch.rand(shape[0], 1, generator=generator) ** 4
    assert_identical(weight.to(dtype))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 100),
    dtype=st.sampled_from(DTYPES),
    exponent=st.integers(-12, 4),
    spread=st.floats(0, 12),
    zeros=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_bits_equal_comfy_kitchen_property(
    rows: int,
    columns: int,
    dtype: torch.dtype,
    exponent: int,
    spread: float,
    zeros: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 2.0**exponent
    weight *= 2.0 ** (-spread * torch.rand(rows, columns, generator=generator))
    if zeros:
        weight[:, ::3] = -0.0
        weight[rows // 2] *= 1e-12
    weight = weight.to(dtype)
    if bool((weight != 0).any()):
        assert_identical(weight)


def test_exact_ties_round_half_to_even() -> None:
    """Every midpoint, with amax 6 and unit scales, against the values worked out by hand."""
    ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0]
    even = [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0]
    workspace = E2M1Workspace(16, torch.device("cpu"))
    workspace.values.copy_(torch.tensor(ties + [-v for v in ties]))
    codes, _ = workspace.encode(16)
    assert unpack(codes.to(torch.uint8).view(1, -1))[0].tolist() == even + [-v for v in even]


def test_error_is_measured_against_float64() -> None:
    weight = torch.randn(64, 96, dtype=torch.float32)
    weight[3] *= 1e-9  # blocks lost to a zero scale count with their whole norm
    fmt = get_format("nvfp4")
    encoded = fmt.encode(weight, MaxRule(), measure_error=True)
    decoded = fmt.decode(encoded.tensors, (64, 96)).double()
    expected = float((decoded - weight.double()).norm() / weight.double().norm())
    assert encoded.relative_error == pytest.approx(expected, rel=1e-5)
    assert 0.08 < expected < 0.11


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode_equals_comfy_kitchen(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape)
    fmt = get_format("nvfp4")
    tensors = fmt.encode(weight, MaxRule()).tensors
    theirs = comfy_kitchen.dequantize_nvfp4(
        tensors["weight"], tensors["weight_scale_2"], tensors["weight_scale"], torch.float32
    )[: shape[0], : shape[1]]
    assert torch.equal(fmt.decode(tensors, shape), theirs)
    rows = slice(shape[0] // 2, shape[0])
    assert torch.equal(fmt.decode(tensors, shape, rows), theirs[rows])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_specs_announce_what_encode_gives(shape: tuple[int, int]) -> None:
    fmt = get_format("nvfp4")
    specs = fmt.tensor_specs(shape, torch.bfloat16)
    tensors = fmt.encode(torch.randn(shape), MaxRule()).tensors
    assert {k: (tuple(v.shape), v.dtype) for k, v in tensors.items()} == {
        k: (v.shape, v.dtype) for k, v in specs.items()
    }


def test_all_zero_weight_decodes_to_zero_with_finite_scales() -> None:
    fmt = get_format("nvfp4")
    encoded = fmt.encode(torch.zeros(32, 64), MaxRule(), measure_error=True)
    assert float(encoded.tensors["weight_scale_2"]) == 1.0
    assert encoded.relative_error == 0.0
    assert torch.equal(fmt.decode(encoded.tensors, (32, 64)), torch.zeros(32, 64))


@pytest.mark.parametrize("magnitude", [1e-38, 1e-30, 6e-8, 1e30, 3e38])
def test_tiny_and_huge_weights_stay_finite_and_accurate(magnitude: float) -> None:
    weight = torch.randn(32, 64).clamp_(-1, 1) * magnitude
    fmt = get_format("nvfp4")
    decoded = fmt.decode(fmt.encode(weight, MaxRule()).tensors, (32, 64))
    assert bool(torch.isfinite(decoded).all())
    if magnitude > 1e-36:
        error = float((decoded.double() - weight.double()).norm() / weight.double().norm())
        assert error < 0.12


def test_tiny_fp16_weight_is_not_lost() -> None:
    """The layout's own scale underflows in fp16; ours is computed in fp32."""
    weight = (torch.randn(32, 64) * 1e-6).half()
    fmt = get_format("nvfp4")
    decoded = fmt.decode(fmt.encode(weight, MaxRule()).tensors, (32, 64))
    assert float((decoded - weight.float()).norm() / weight.float().norm()) < 0.12


def test_block_amax_propagates_nan() -> None:
    weight = torch.ones(2, 32)
    weight[1, 20] = float("nan")
    amax = block_amax(weight)
    assert amax[0].tolist() == [1.0, 1.0] and bool(amax[1, 1].isnan())


def test_misaligned_and_non_matrix_shapes_are_refused_with_the_reason() -> None:
    fmt = get_format("nvfp4")
    assert fmt.refusal((3072, 3072)) is None
    assert "in_features % 32" in (fmt.refusal((3072, 48)) or "")
    assert "2-D" in (fmt.refusal((16, 3, 1, 2, 2)) or "")


@pytest.mark.parametrize("power", [-100, -80, 80, 110])
def test_the_search_is_the_same_for_small_and_large_weights(power: int) -> None:
    """The squares of these values are zero or infinite in float32."""
    fmt, rule = get_format("nvfp4"), get_rounding("mse")
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    usual, scaled = (fmt.encode(w, rule).tensors for w in (weight, weight * 2.0**power))
    assert torch.equal(scaled["weight"], usual["weight"])
    assert torch.equal(scaled["weight_scale"].float(), usual["weight_scale"].float())
    assert scaled["weight_scale_2"] == usual["weight_scale_2"] * 2.0**power
