"""Properties of all formats, and tests of the unquantized ones."""

from __future__ import annotations

import pytest
import torch
from nvfp4_foundry.quant.errors import FormatError
from nvfp4_foundry.quant.formats import FORMATS, get_format
from nvfp4_foundry.quant.formats.base import row_slices
from nvfp4_foundry.quant.rounding import MaxRule, get_rounding


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "keep"])
def test_error_within_the_stated_bound(name: str) -> None:
    fmt = get_format(name)
    weight = torch.randn(96, 256)
    encoded = fmt.encode(weight, MaxRule(), measure_error=True)
    decoded = fmt.decode(encoded.tensors, (96, 256))
    error = float((decoded - weight).norm() / weight.norm())
    assert encoded.relative_error == pytest.approx(error, rel=1e-4, abs=1e-9)
    assert error <= fmt.error_bound


@pytest.mark.parametrize("name", list(FORMATS))
def test_specs_announce_what_encode_gives(name: str) -> None:
    fmt = get_format(name)
    weight = torch.randn(40, 256, dtype=torch.bfloat16)
    tensors = fmt.encode(weight, MaxRule()).tensors
    specs = fmt.tensor_specs((40, 256), weight.dtype)
    assert {k: (tuple(v.shape), v.dtype) for k, v in tensors.items()} == {
        k: (v.shape, v.dtype) for k, v in specs.items()
    }
    assert fmt.nbytes((40, 256), weight.dtype) == sum(t.nbytes for t in tensors.values())


@pytest.mark.parametrize("magnitude", [1e-30, 1e25])
@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.is_quantized])
def test_error_is_measured_at_any_magnitude(name: str, magnitude: float) -> None:
    """The squares of such values overflow float32."""
    torch.manual_seed(0)
    weight = torch.randn(64, 256)
    if name == "convrot_w4a4" or name == "convrot_w4a8":
        magnitude = max(magnitude, 1e-8)  # comfy-kitchen's smallest scale is 1.4e-11
    if name.startswith("int8"):
        magnitude = max(magnitude, 1e-26)  # and 1e-30
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


def test_an_all_zero_weight_decodes_to_zero() -> None:
    for fmt in FORMATS.values():
        encoded = fmt.encode(torch.zeros(32, 256), MaxRule(), measure_error=True)
        assert encoded.relative_error == 0.0
        assert torch.equal(fmt.decode(encoded.tensors, (32, 256)), torch.zeros(32, 256))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.is_quantized])
def test_nan_and_inf_are_errors(bad: float, name: str) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        weight = torch.randn(32, 256).to(dtype)
        weight[7, 9] = bad
        with pytest.raises(FormatError, match="NaN or Inf"):
            get_format(name).encode(weight, MaxRule())


@pytest.mark.parametrize("rounding", ["max", "mse"])
@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.is_quantized])
def test_encode_leaves_the_source_untouched(name: str, rounding: str) -> None:
    weight = torch.randn(48, 256)
    copy = weight.clone()
    get_format(name).encode(weight, get_rounding(rounding), measure_error=True)
    assert torch.equal(weight, copy)


@pytest.mark.parametrize("name", list(FORMATS))
def test_rows_decode_as_the_whole_does(name: str) -> None:
    """Bit for bit, in bands that cut through tiles of scales."""
    fmt, shape = get_format(name), (300, 512)
    tensors = fmt.encode(torch.randn(shape), MaxRule()).tensors
    whole = fmt.decode(tensors, shape)
    assert whole.dtype == torch.float32 and tuple(whole.shape) == shape
    for rows in (slice(0, 1), slice(100, 140), slice(127, 300), slice(299, 300)):
        assert torch.equal(fmt.decode(tensors, shape, rows), whole[rows])


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.is_quantized])
def test_more_than_one_chunk_and_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits and the error do not depend on the chunks."""
    weight = torch.randn(100, 512) * torch.rand(100, 1)
    fmt = get_format(name)
    whole = fmt.encode(weight, get_rounding("mse"), measure_error=True)
    monkeypatch.setattr(row_slices, "__defaults__", (4096,))
    parts = fmt.encode(weight, get_rounding("mse"), measure_error=True)
    assert parts.relative_error == pytest.approx(whole.relative_error, rel=1e-6)
    for suffix, tensor in whole.tensors.items():
        flat, other = (t.reshape(-1).view(torch.uint8) for t in (tensor, parts.tensors[suffix]))
        assert torch.equal(flat, other), suffix


def test_quantized_formats_refuse_what_is_no_matrix() -> None:
    for fmt in FORMATS.values():
        assert ("2-D" in (fmt.refusal((16, 3, 1, 2, 2)) or "")) == fmt.is_quantized
