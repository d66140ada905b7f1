"""Rotated formats and rounded inputs against float64 by hand and comfy-kitchen's products."""

from __future__ import annotations

import comfy_kitchen
import pytest
import torch
from nvfp4_foundry.quant.formats import format_of_marker, get_format
from nvfp4_foundry.quant.formats.convrot_w4a4 import pack_nibbles, unpack_nibbles
from nvfp4_foundry.quant.formats.rotation import hadamard, is_group_size
from nvfp4_foundry.quant.rounding import MaxRule

ROTATED = ["int8_convrot", "convrot_w4a4", "convrot_w4a8"]


@pytest.mark.parametrize("size", [4, 16, 64, 256])
def test_the_matrix_is_orthogonal_and_regular(size: int) -> None:
    matrix = hadamard(size).double()
    assert torch.equal(matrix @ matrix, torch.eye(size, dtype=torch.float64))
    assert torch.equal(matrix.sum(0), torch.ones(size, dtype=torch.float64))
    assert is_group_size(size) and not is_group_size(2 * size)


def test_rotated_codes_by_hand() -> None:
    """Four channels: sums and differences of the weight, halved, over their largest."""
    fmt = format_of_marker({"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 4})
    assert fmt is not None
    tensors = fmt.encode(torch.tensor([[8.0, 0.0, 0.0, -2.0]]), MaxRule()).tensors
    # [8,0,0,-2] H = ([8+2, 8-2, 8-2, -8-2]) / 2 = [5, 3, 3, -5]
    assert tensors["weight"].tolist() == [[127, 76, 76, -127]]
    assert float(tensors["weight_scale"]) == pytest.approx(5 / 127)


@pytest.mark.parametrize("name", ROTATED)
def test_rotated_weights_decode_near_the_source(name: str) -> None:
    """The result is rotated back. Otherwise the error would exceed the values themselves."""
    weight = torch.randn(40, 512)
    weight[:, 7] *= 30
    fmt = get_format(name)
    encoded = fmt.encode(weight, MaxRule(), measure_error=True)
    decoded = fmt.decode(encoded.tensors, (40, 512)).double()
    error = float((decoded - weight.double()).norm() / weight.double().norm())
    assert encoded.relative_error == pytest.approx(error, rel=1e-4)
    assert error < (0.02 if name == "int8_convrot" else 0.2)


def test_every_nibble_round_trips() -> None:
    codes = torch.arange(-8, 8, dtype=torch.int8).repeat(3, 2)
    assert torch.equal(unpack_nibbles(pack_nibbles(codes)), codes)
    assert pack_nibbles(torch.tensor([[1, -2]], dtype=torch.int8)).tolist() == [[-31]]  # 0xE1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["int8_tensorwise", "int8_rowwise", "int8_convrot"])
def test_inputs_are_rounded_as_the_int8_product_does(name: str, dtype: torch.dtype) -> None:
    """Through comfy-kitchen's own product with a weight that picks one channel at a time."""
    x = torch.randn(9, 256).to(dtype)
    x[2] *= 100
    x[3] = 0
    fmt = get_format(name)
    rotated = name == "int8_convrot"
    basis = hadamard(256).double() if rotated else torch.eye(256, dtype=torch.float64)
    picks = torch.eye(256, dtype=torch.int8)
    one = torch.ones((), dtype=torch.float32)
    seen = comfy_kitchen.int8_linear(
        x, picks, one, out_dtype=torch.float32, convrot=rotated, convrot_groupsize=256
    )
    ours = fmt.emulate_activations(x, None)
    assert torch.allclose(ours.double() @ basis, seen.double(), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_inputs_are_rounded_as_the_int4_product_does(dtype: torch.dtype) -> None:
    x = torch.randn(9, 256).to(dtype)
    x[3] = 0
    picks = pack_nibbles(torch.eye(256, dtype=torch.int8))
    seen = comfy_kitchen.convrot_w4a4_linear(x, picks, torch.ones(256))
    ours = get_format("convrot_w4a4").emulate_activations(x, None).double() @ hadamard(256).double()
    tolerance = 1e-6 if dtype == torch.float32 else 2.0**-8  # its product is in that dtype
    assert torch.allclose(ours, seen.double(), rtol=tolerance, atol=1e-6)


def test_mxfp8_rounds_inputs_as_comfy_kitchen_quantizes_them() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(40, 96).to(dtype) * 3
        codes, scales = comfy_kitchen.quantize_mxfp8(x, pad_32x=True)
        seen = comfy_kitchen.dequantize_mxfp8(codes, scales, torch.float32)[:40]
        assert torch.equal(get_format("mxfp8").emulate_activations(x, None), seen)


def test_no_rows_and_odd_widths_can_be_rounded() -> None:
    for name in ("int8_rowwise", "mxfp8"):
        for rows in (0, 3):
            assert get_format(name).emulate_activations(torch.ones(rows, 33), None).shape == (
                rows, 33,
            )  # fmt: skip


def test_formats_that_compute_in_16_bits_leave_inputs_alone() -> None:
    x = torch.randn(5, 64)
    for name in ("float8_e5m2", "nvfp4_w4a16", "bf16"):
        fmt = get_format(name)
        assert not fmt.rounds_activations and torch.equal(fmt.emulate_activations(x, None), x)


def test_widths_that_cannot_be_rotated_are_refused_with_the_reason() -> None:
    assert get_format("int8_convrot").refusal((64, 320)) is None
    assert get_format("int8_convrot").marker_for((64, 320))["convrot_groupsize"] == 64
    assert get_format("int8_convrot").marker_for((64, 3072))["convrot_groupsize"] == 256
    assert "in_features % 16" in (get_format("int8_convrot").refusal((64, 100)) or "")
    assert "in_features % 256" in (get_format("convrot_w4a4").refusal((64, 320)) or "")
    assert get_format("int8_rowwise").refusal((64, 100)) is None
