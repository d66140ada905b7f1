"""Which format decodes a layer, by its marker: our own, and those of other tools."""

from __future__ import annotations

from typing import Any

import comfy_kitchen
import pytest
import torch
from comfy_kitchen.tensor import TensorWiseINT8Layout
from nvfp4_foundry.quant.formats import FORMATS, format_of_marker, get_format
from nvfp4_foundry.quant.rounding import MaxRule

QUANTIZED = [name for name, fmt in FORMATS.items() if fmt.is_quantized]


@pytest.mark.parametrize("shape", [(32, 256), (1, 512), (48, 320)])
@pytest.mark.parametrize("name", QUANTIZED)
def test_our_own_markers_round_trip(name: str, shape: tuple[int, int]) -> None:
    fmt = get_format(name)
    if fmt.refusal(shape):
        return
    shapes = {s: spec.shape for s, spec in fmt.tensor_specs(shape, torch.bfloat16).items()}
    assert format_of_marker(fmt.marker_for(shape) or {}, shapes) is fmt


INT8 = {"format": "int8_tensorwise"}
ROTATED_16 = {"convrot": True, "convrot_groupsize": 16}


@pytest.mark.parametrize("marker", [{**INT8, **ROTATED_16}, {**INT8, "params": ROTATED_16}])
@pytest.mark.parametrize("per_row", [True, False])
def test_other_group_sizes_are_decoded(marker: dict[str, Any], per_row: bool) -> None:
    weight = torch.randn(24, 64)
    codes, params = TensorWiseINT8Layout.quantize(
        weight, per_channel=True, convrot=True, convrot_groupsize=16
    )
    scale = params.scale
    if not per_row:
        scale = scale.amax()
    shapes = {"weight": (24, 64), "weight_scale": tuple(scale.shape)}
    fmt = format_of_marker(marker, shapes)
    assert fmt is not None and fmt.name == "int8_convrot"
    assert fmt.tensor_specs((24, 64), torch.bfloat16)["weight_scale"].shape == tuple(scale.shape)
    params = TensorWiseINT8Layout.Params(
        scale=scale, orig_dtype=torch.float32, orig_shape=(24, 64), convrot=True,
        convrot_groupsize=16,
    )  # fmt: skip
    theirs = TensorWiseINT8Layout.dequantize(codes, params)
    ours = fmt.decode({"weight": codes, "weight_scale": scale}, (24, 64))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, codes.float() * scale, atol=0.1)


def test_other_rotations_of_four_bits_are_decoded() -> None:
    weight = torch.randn(24, 128)
    marker = {"format": "convrot_w4a4", "params": {"convrot_groupsize": 64, "linear_dtype": "int8"}}
    fmt = format_of_marker(marker)
    assert fmt is not None and fmt.name == "convrot_w4a8"
    assert fmt.refusal((24, 128)) is None and fmt.logical_shape((24, 64), None) == (24, 128)
    codes, scales = comfy_kitchen.quantize_convrot_w4a4_weight(weight, convrot_groupsize=64)
    theirs = comfy_kitchen.dequantize_convrot_w4a4_weight(codes, scales, convrot_groupsize=64)
    ours = fmt.decode({"weight": codes, "weight_scale": scales}, (24, 128))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.equal(fmt.encode(weight, MaxRule()).tensors["weight"], codes)


def test_comfyui_assumes_256_where_a_marker_is_silent() -> None:
    assert format_of_marker({"format": "convrot_w4a4"}) is get_format("convrot_w4a4")
    shapes = {"weight": (8, 512), "weight_scale": (8, 1)}
    assert format_of_marker({**INT8, "convrot": True}, shapes) is get_format("int8_convrot")


def test_a_scale_of_one_number_is_per_tensor_however_it_is_shaped() -> None:
    for scale in ((), (1,), (1, 1)):
        fmt = format_of_marker(INT8, {"weight": (8, 32), "weight_scale": scale})
        assert fmt is get_format("int8_tensorwise")


@pytest.mark.parametrize(
    "marker",
    [
        {"format": "int5"},
        {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 100},
        {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": "many"},
        {"format": "convrot_w4a4", "linear_dtype": "int6"},
        {"format": "convrot_w4a4", "convrot_groupsize": 128},
    ],
)
def test_what_comfyui_could_not_read_is_unknown(marker: dict[str, Any]) -> None:
    assert format_of_marker(marker, {"weight": (8, 512), "weight_scale": (8, 1)}) is None


def test_full_precision_is_valid_on_any_format() -> None:
    in_16_bits = {"float8_e4m3fn": "float8_e4m3fn_w8a16", "mxfp8": "mxfp8"}
    for name, ours in in_16_bits.items():
        marker = {"format": name, "full_precision_matrix_mult": True}
        assert format_of_marker(marker) is get_format(ours)
    assert format_of_marker({"format": "float8_e5m2"}) is get_format("float8_e5m2")
