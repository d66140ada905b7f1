"""``asym_w4a8_int8`` against comfy-kitchen's quantizer and product, and against definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nvfp4_foundry.quant.errors import FormatError
from nvfp4_foundry.quant.formats import FORMATS, format_of_marker, get_format
from nvfp4_foundry.quant.formats.codebook import NearestLevel, thresholds
from nvfp4_foundry.quant.formats.rotation import rotate
from nvfp4_foundry.quant.rounding import MaxRule, get_rounding

NAME = "asym_w4a8_int8"
FMT = get_format(NAME)
SUFFIXES = ("weight", "weight_s_rel", "weight_s_channel", "weight_codebook")


@pytest.fixture(scope="module")
def kitchen() -> Any:
    """comfy-kitchen's module for the format; older versions do not have it."""
    return pytest.importorskip("comfy_kitchen.tensor.w4a8_int8", exc_type=ImportError)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_identical(kitchen: Any, weight: torch.Tensor) -> None:
    codes, blocks, rows, correction, codebook = kitchen.quantize_w4a8_int8_weight(weight)
    assert correction is None
    ours = FMT.encode(weight, MaxRule()).tensors
    for suffix, theirs in zip(SUFFIXES, (codes, blocks, rows, codebook), strict=True):
        assert tuple(ours[suffix].shape) == tuple(theirs.shape)
        assert torch.equal(bits(ours[suffix]), bits(theirs)), suffix


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def heavy_tailed(rows: int, columns: int) -> torch.Tensor:
    """A weight with one large value in every block of its rotated basis."""
    spikes = torch.zeros(rows, columns)
    spikes.view(-1, 16)[:, 3] = torch.randn(rows * columns // 16)
    return rotate(spikes + torch.randn(rows, columns) * 0.1, 256)


@pytest.mark.parametrize(
    "shape", [(1, 256), (3, 768), (1040, 512), (4100, 1024)], ids=str
)  # the last one in two parts
def test_bits_equal_comfy_kitchen(kitchen: Any, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape) * torch.rand(shape[0], 1).add(0.1) ** 4
    assert_identical(kitchen, weight)


def test_bits_are_equal_where_a_codebook_is_fitted(kitchen: Any) -> None:
    weight = heavy_tailed(64, 512)
    codebook = FMT.encode(weight, MaxRule()).tensors["weight_codebook"]
    assert not torch.isclose(codebook, torch.tensor(-0.980602)).any()
    assert_identical(kitchen, weight)


@pytest.mark.parametrize("share", [0.03, 0.5, 0.95])
def test_rows_of_zeros_cost_the_others_nothing(kitchen: Any, share: float) -> None:
    """comfy-kitchen fits a table to the zeros, which is out of order and useless."""
    weight = torch.randn(400, 512)
    weight[: int(400 * share)] = 0.0
    found = FMT.encode(weight, MaxRule(), measure_error=True)
    assert found.relative_error == pytest.approx(0.073, rel=0.02)
    assert int(FMT.decode(found.tensors, (400, 512)).eq(0).all(1).sum()) == int(400 * share)
    codes, blocks, rows, _, table = kitchen.quantize_w4a8_int8_weight(weight)
    theirs = kitchen.dequantize_w4a8_int8_weight(
        codes, blocks, rows, table, output_dtype=torch.float32
    )
    if share > 0.1:
        assert error(theirs, weight) > 0.1
    else:
        assert_identical(kitchen, weight)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 50),
    groups=st.integers(1, 4),
    exponent=st.integers(-8, 12),
    spread=st.floats(0, 6),
    zeros=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_bits_equal_comfy_kitchen_property(
    kitchen: Any, rows: int, groups: int, exponent: int, spread: float, zeros: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = rows, groups * 256
    weight = torch.randn(shape, generator=generator) * 2.0**exponent
    weight *= 2.0 ** (-spread * torch.rand(shape, generator=generator))
    if zeros:
        weight[:, ::3] = -0.0
    assert_identical(kitchen, weight)


def test_comfy_kitchen_decodes_the_same_weight(kitchen: Any) -> None:
    shape = (70, 512)
    tensors = FMT.encode(torch.randn(shape), get_rounding("mse")).tensors
    codes, blocks, rows, codebook = (tensors[suffix] for suffix in SUFFIXES)
    theirs = kitchen.dequantize_w4a8_int8_weight(
        codes, blocks, rows, codebook, output_dtype=torch.float32
    )
    assert torch.allclose(FMT.decode(tensors, shape), theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_product_is_that_of_rounded_inputs(kitchen: Any, dtype: torch.dtype) -> None:
    weight, inputs = torch.randn(48, 512), torch.randn(20, 512).to(dtype)
    inputs[:, 9] *= 30
    tensors = FMT.encode(weight, MaxRule()).tensors
    codes, blocks, rows, codebook = (tensors[suffix] for suffix in SUFFIXES)
    product = kitchen.w4a8_int8_linear(
        inputs, codes, blocks, rows, codebook, out_dtype=torch.float32
    )
    rounded = FMT.emulate_activations(inputs, None)
    assert error(rounded @ FMT.decode(tensors, (48, 512)).T, product) < 2e-6
    assert error(inputs.float() @ weight.T, product) > 0.05


@pytest.mark.parametrize(
    ("block", "group", "has_codebook"), [(16, 256, False), (8, 64, True), (32, 256, True)]
)
def test_other_sizes_and_plain_codes_are_read(
    kitchen: Any, block: int, group: int, has_codebook: bool
) -> None:
    shape = (40, 512)
    codes, blocks, rows, _, codebook = kitchen.quantize_w4a8_int8_weight(
        torch.randn(shape), group_size=block, convrot_groupsize=group, codebook=has_codebook
    )
    stored = {"weight": codes, "weight_s_rel": blocks, "weight_s_channel": rows}
    stored |= {"weight_codebook": codebook} if has_codebook else {}
    marker = {"format": NAME, "params": {"group_size": block, "convrot_groupsize": group}}
    fmt = format_of_marker(marker, {k: tuple(v.shape) for k, v in stored.items()})
    assert fmt is not None and fmt is not FMT and fmt.name == NAME
    specs = fmt.tensor_specs(shape, torch.bfloat16)
    assert {k: s.shape for k, s in specs.items()} == {k: tuple(v.shape) for k, v in stored.items()}
    theirs = kitchen.dequantize_w4a8_int8_weight(
        codes, blocks, rows, codebook, None, block, group, torch.float32
    )
    assert torch.allclose(fmt.decode(stored, shape), theirs, rtol=0, atol=2e-6)
    rows_only = fmt.decode(stored, shape, slice(5, 11))
    assert torch.equal(rows_only, fmt.decode(stored, shape)[5:11])


def test_asymmetric_files_are_read_and_multiplied_in_16_bits(kitchen: Any) -> None:
    """ComfyUI 0.33 drops the constants; newer ones add them (``weight_correction``)."""
    shape = (24, 512)
    weight = torch.rand(shape) + 0.5
    codes, blocks, rows, correction, _ = kitchen.quantize_w4a8_int8_weight(
        weight, symmetric=False, codebook=False
    )
    stored = {"weight": codes, "weight_s_rel": blocks, "weight_s_channel": rows}
    stored["weight_correction"] = correction
    fmt = format_of_marker({"format": NAME}, {k: tuple(v.shape) for k, v in stored.items()})
    assert fmt is not None and fmt is not FMT
    theirs = kitchen.dequantize_w4a8_int8_weight(
        codes, blocks, rows, None, correction, output_dtype=torch.float32
    )
    assert error(fmt.decode(stored, shape), theirs) < 1e-6
    x = torch.randn(3, 512)
    assert torch.equal(fmt.emulate_activations(x, None), x)
    with pytest.raises(FormatError, match="only as comfy-kitchen"):
        fmt.encode(weight, MaxRule())


@pytest.mark.parametrize("repeated", [False, True])
def test_thresholds_are_where_distances_are_equal(repeated: bool) -> None:
    levels = torch.randn(16).mul(3).sort().values
    if repeated:
        levels = levels.mul(0.7).round()
    bounds = thresholds(levels)
    above = torch.nextafter(bounds, torch.full_like(bounds, torch.inf))
    values = torch.cat([torch.randn(4000) * 4, bounds, above])
    found = NearestLevel(levels.unsqueeze(0), 12.0, 4096)(values)
    assert torch.equal(found, torch.bucketize(values, bounds, out_int32=True))
    distance = (values.unsqueeze(1) - levels).abs()
    chosen = distance.gather(1, found.long().unsqueeze(1)).squeeze(1)
    assert torch.equal(chosen, distance.min(1).values)
    if not repeated:
        assert torch.equal(found.long(), distance.argmin(1))  # the lower one of equal distances


def test_levels_closer_than_a_cell_are_told_apart() -> None:
    levels = torch.linspace(-1, 1, 16) * 1e-4
    nearest = NearestLevel(levels.unsqueeze(0), 1.0, 64)
    values = torch.randn(500) * 1e-4
    distance = (values.unsqueeze(1) - levels).abs()
    assert torch.equal(nearest(values).long(), distance.argmin(1))


def test_the_search_lowers_the_error() -> None:
    """By a twentieth of the squared error; NVFP4 at the same size leaves a third more."""
    for weight in (torch.randn(256, 512), torch.distributions.StudentT(4.0).sample((256, 512))):
        plain, searched, nvfp4 = (
            get_format(name).encode(weight, get_rounding(rule), measure_error=True).relative_error
            for name, rule in ((NAME, "max"), (NAME, "mse"), ("nvfp4", "max"))
        )
        assert plain and searched and nvfp4
        assert searched < 0.98 * plain and plain < 0.8 * nvfp4


@pytest.mark.parametrize("magnitude", [1e-38, 1e-20, 1e-6, 1e30, 1e38])
def test_any_magnitude_is_kept(magnitude: float) -> None:
    """comfy-kitchen's smallest scale is 1e-8, and a rotation may overflow."""
    weight = torch.rand(32, 512) * 2 - 1
    usual = FMT.encode(weight, MaxRule(), measure_error=True)
    scaled = FMT.encode(weight * magnitude, MaxRule(), measure_error=True)
    assert scaled.relative_error == pytest.approx(usual.relative_error, rel=0.02)
    decoded = FMT.decode(scaled.tensors, (32, 512)).double() / magnitude
    assert error(decoded, weight) < 0.1


def test_a_block_with_a_single_value_is_within_the_bound() -> None:
    single = torch.zeros(4, 256)
    single[:, 7] = 1.0
    basis = rotate(single, 256)
    for rounding in ("max", "mse"):
        found = FMT.encode(basis, get_rounding(rounding), measure_error=True).relative_error
        assert found is not None and found < FMT.error_bound


def test_the_marker_and_what_needs_it() -> None:
    assert FMT.marker == {"format": NAME, "group_size": 16, "convrot_groupsize": 256}
    assert FMT.needs_comfyui == (0, 33) and FMT.native_from == (8, 0)
    assert "in_features % 256" in (FMT.refusal((64, 320)) or "")
    newer = {name for name, fmt in FORMATS.items() if fmt.needs_comfyui}
    assert newer == {NAME, "nvfp4_smooth"}
