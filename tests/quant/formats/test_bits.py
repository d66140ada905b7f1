"""Codes and scales of every format against comfy-kitchen's own quantizers, bit for bit.

With the max rule, given the weight as float32. MXFP8 and NVFP4 (see test_nvfp4) agree for 16-bit
weights too; the others differ there because comfy-kitchen computes in the weight's dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import comfy_kitchen
import pytest
import torch
from comfy_kitchen.tensor import QuantizedTensor, TensorWiseINT8Layout
from hypothesis import given, settings
from hypothesis import strategies as st
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.rounding import MaxRule

Reference = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def float8(dtype: torch.dtype) -> Reference:
    def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = weight.abs().max() / torch.finfo(dtype).max
        return comfy_kitchen.quantize_per_tensor_fp8(weight, scale, dtype), scale

    return quantize


def int8_convrot(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    size = next(s for s in (256, 64, 16) if weight.shape[1] % s == 0)
    codes, params = TensorWiseINT8Layout.quantize(
        weight, per_channel=True, convrot=True, convrot_groupsize=size
    )
    return codes, params.scale


REFERENCES: dict[str, tuple[int, Reference]] = {
    "float8_e4m3fn": (1, float8(torch.float8_e4m3fn)),
    "float8_e5m2": (1, float8(torch.float8_e5m2)),
    "mxfp8": (1, lambda weight: comfy_kitchen.quantize_mxfp8(weight, pad_32x=True)),
    "int8_tensorwise": (1, comfy_kitchen.quantize_int8_tensorwise),
    "int8_rowwise": (1, comfy_kitchen.quantize_int8_rowwise),
    "int8_convrot": (16, int8_convrot),
    "convrot_w4a4": (256, comfy_kitchen.quantize_convrot_w4a4_weight),
    "convrot_w4a8": (256, comfy_kitchen.quantize_convrot_w4a4_weight),
}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_identical(name: str, weight: torch.Tensor) -> None:
    tensors = get_format(name).encode(weight, MaxRule()).tensors
    codes, scales = REFERENCES[name][1](weight if name == "mxfp8" else weight.float())
    assert tuple(tensors["weight"].shape) == tuple(codes.shape)
    assert tuple(tensors["weight_scale"].shape) == tuple(scales.shape)
    assert torch.equal(bits(tensors["weight_scale"]), bits(scales))
    assert torch.equal(bits(tensors["weight"]), bits(codes))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_bits_equal_comfy_kitchen(name: str, dtype: torch.dtype) -> None:
    width = REFERENCES[name][0]
    generator = torch.Generator().manual_seed(1)
    for rows, columns in ((1, width), (3, 3 * width), (130, 33 * width), (1040, 272)):
        if columns % width:
            columns = 2 * width
        weight = torch.randn(rows, columns, generator=generator)
        weight *= torch.rand(rows, 1, generator=generator) ** 4
        assert_identical(name, weight.to(dtype))


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(sorted(REFERENCES)),
    rows=st.integers(1, 70),
    columns=st.integers(1, 100),
    dtype=st.sampled_from(DTYPES),
    exponent=st.integers(-12, 8),
    spread=st.floats(0, 12),
    zeros=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_bits_equal_comfy_kitchen_property(
    name: str,
    rows: int,
    columns: int,
    dtype: torch.dtype,
    exponent: int,
    spread: float,
    zeros: bool,
    seed: int,
) -> None:
    width = REFERENCES[name][0]
    columns = -(-columns // width) * width
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 2.0**exponent
    weight *= 2.0 ** (-spread * torch.rand(rows, columns, generator=generator))
    if zeros:
        weight[:, ::3] = -0.0
        weight[rows // 2] = 0.0
    weight = weight.to(dtype)
    if name.startswith("float8") and not bool((weight != 0).any()):
        return  # comfy-kitchen divides zero by zero there
    assert_identical(name, weight)


@pytest.mark.parametrize("magnitude", [1e-20, 1e-9, 1e20])
@pytest.mark.parametrize("name", [n for n in REFERENCES if not n.startswith("float8")])
def test_tiny_and_huge_weights(name: str, magnitude: float) -> None:
    """Below comfy-kitchen's smallest scales too, where all codes are zero."""
    assert_identical(name, torch.randn(33, 256) * magnitude)


def test_a_whole_block_of_mxfp8_may_be_too_small() -> None:
    """In such blocks, comfy-kitchen's scale is zero and its codes are NaN."""
    weight = torch.randn(32, 64)
    weight[3, :32] *= 1e-38
    weight[3, 5] = 0.0
    codes, _ = comfy_kitchen.quantize_mxfp8(weight)
    fmt = get_format("mxfp8")
    tensors = fmt.encode(weight, MaxRule()).tensors
    assert bool(codes[3, :32].float().isnan().any())
    assert fmt.decode(tensors, (32, 64))[3, :32].tolist() == [0.0] * 32
    others = torch.ones(32, 64, dtype=torch.bool)
    others[3, :32] = False
    assert torch.equal(tensors["weight"].view(torch.uint8)[others], codes.view(torch.uint8)[others])


@pytest.mark.parametrize("name", REFERENCES)
def test_decoding_is_comfy_kitchens(name: str) -> None:
    """The values are equal except for rotated weights, which comfy-kitchen scales first."""
    fmt, shape = get_format(name), (70, 512)
    tensors = fmt.encode(torch.randn(shape), MaxRule()).tensors
    decoded = fmt.decode(tensors, shape)
    theirs = dequantize(name, tensors, shape)
    if fmt.marker is not None and "convrot" in str(fmt.marker):
        assert torch.allclose(decoded, theirs, rtol=0, atol=1e-5)
    else:
        assert torch.equal(decoded, theirs)


def dequantize(name: str, tensors: dict[str, torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
    weight, scale = tensors["weight"], tensors["weight_scale"]
    if name.startswith("float8"):
        return comfy_kitchen.dequantize_per_tensor_fp8(weight, scale, torch.float32)
    if name == "mxfp8":
        scales = scale.view(torch.float8_e8m0fnu)
        full = comfy_kitchen.dequantize_mxfp8(weight, scales, torch.float32)
        return full[: shape[0], : shape[1]]
    if name.startswith("convrot"):
        return comfy_kitchen.dequantize_convrot_w4a4_weight(weight, scale)
    params = TensorWiseINT8Layout.Params(
        scale=scale, orig_dtype=torch.float32, orig_shape=shape, convrot=name == "int8_convrot"
    )
    return QuantizedTensor(weight, "TensorWiseINT8Layout", params).dequantize()
