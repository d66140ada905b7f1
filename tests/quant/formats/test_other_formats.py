"""float8 against comfy-kitchen, and the unquantized formats."""

from __future__ import annotations

import comfy_kitchen
import pytest
import torch
from nvfp4_foundry.quant.errors import FormatError
from nvfp4_foundry.quant.formats import FORMATS, format_of_marker, get_format
from nvfp4_foundry.quant.rounding import MaxRule


def test_float8_equals_comfy_kitchen_on_fp32() -> None:
    weight = torch.randn(130, 80) * 0.03
    tensors = get_format("float8_e4m3fn").encode(weight, MaxRule()).tensors
    theirs = comfy_kitchen.quantize_per_tensor_fp8(weight, tensors["weight_scale"])
    assert torch.equal(tensors["weight"].view(torch.uint8), theirs.view(torch.uint8))
    assert float(tensors["weight_scale"]) == pytest.approx(float(weight.abs().max()) / 448)


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "keep"])
def test_error_within_the_stated_bound(name: str) -> None:
    fmt = get_format(name)
    weight = torch.randn(96, 128)
    encoded = fmt.encode(weight, MaxRule(), measure_error=True)
    decoded = fmt.decode(encoded.tensors, (96, 128))
    error = float((decoded - weight).norm() / weight.norm())
    assert encoded.relative_error == pytest.approx(error, rel=1e-4, abs=1e-9)
    assert error <= fmt.error_bound


@pytest.mark.parametrize("name", list(FORMATS))
def test_specs_announce_what_encode_gives(name: str) -> None:
    fmt = get_format(name)
    weight = torch.randn(32, 64, dtype=torch.bfloat16)
    tensors = fmt.encode(weight, MaxRule()).tensors
    specs = fmt.tensor_specs((32, 64), weight.dtype)
    assert {k: (tuple(v.shape), v.dtype) for k, v in tensors.items()} == {
        k: (v.shape, v.dtype) for k, v in specs.items()
    }
    assert fmt.nbytes((32, 64), weight.dtype) == sum(t.nbytes for t in tensors.values())


@pytest.mark.parametrize("magnitude", [1e-30, 1e25])
@pytest.mark.parametrize("name", ["nvfp4", "float8_e4m3fn"])
def test_error_is_measured_at_any_magnitude(name: str, magnitude: float) -> None:
    """Squares of such values leave float32."""
    torch.manual_seed(0)
    weight = torch.randn(64, 128)
    plain = get_format(name).encode(weight, MaxRule(), measure_error=True).relative_error
    scaled = get_format(name).encode(weight * magnitude, MaxRule(), measure_error=True)
    assert scaled.relative_error == pytest.approx(plain, rel=0.02)


def test_keep_is_the_same_tensor() -> None:
    weight = torch.randn(4, 4, 1, 2, 2)
    assert get_format("keep").encode(weight, MaxRule()).tensors["weight"] is weight


def test_fp16_overflow_is_an_error() -> None:
    with pytest.raises(FormatError, match="65504"):
        get_format("fp16").encode(torch.full((4, 4), 1e6), MaxRule())


def test_unknown_format_lists_the_known() -> None:
    with pytest.raises(FormatError, match="nvfp4_w4a16"):
        get_format("int3")


@pytest.mark.parametrize("name", ["nvfp4", "nvfp4_w4a16", "float8_e4m3fn"])
def test_markers_round_trip(name: str) -> None:
    fmt = get_format(name)
    assert fmt.marker is not None and format_of_marker(fmt.marker) is fmt
