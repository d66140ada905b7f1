"""Weights near the largest and the smallest float are encoded right, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nvfp4_foundry.quant.checkpoint import verify_checkpoint
from nvfp4_foundry.quant.conversion.check_encoding import require_decodes, with_values
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import FormatError
from nvfp4_foundry.quant.formats import FORMATS
from nvfp4_foundry.quant.rounding import ROUNDINGS
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import Toy, plan_of

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
QUANTIZED = [name for name, fmt in FORMATS.items() if fmt.is_quantized]
LAYER = "blocks.1.ffn.0"


def weight_of(kind: str, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Return ``[32, 256]`` values at one end of a dtype's range."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(32, 256, generator=generator, dtype=torch.float64)
    base /= base.abs().max()
    limits = torch.finfo(dtype)
    if kind == "outlier":
        usual = (base * 0.02).to(dtype)
        usual[3, 7] = limits.max
        return usual
    if kind == "one row":
        usual = (base * 0.02).to(dtype)
        usual[5] = (base[5] * limits.tiny).to(dtype)
        return usual
    scales = {
        "largest": limits.max,
        "signs": limits.max,
        "a third of the largest": limits.max / 3,
        "smallest normal": limits.tiny * 8,
        "subnormal": limits.tiny / 2,
        "zero": 0.0,
    }
    values = base.sign() if kind == "signs" else base
    return (values * scales[kind]).to(dtype)


KINDS = ("outlier", "one row", "largest", "signs", "a third of the largest", "smallest normal",
         "subnormal", "zero")  # fmt: skip


def error_of(name: str, weight: torch.Tensor, rounding: str) -> float:
    """Encode, decode and compare in float64."""
    fmt = FORMATS[name]
    encoded = fmt.encode(weight, ROUNDINGS[rounding], measure_error=True)
    require_decodes(weight, encoded, fmt)
    decoded = fmt.decode(encoded.tensors, tuple(weight.shape)).double()
    unit = float(weight.double().abs().max()) or 1.0
    wanted = weight.double() / unit
    norm = float(wanted.norm()) or 1.0
    return float((decoded / unit - wanted).norm()) / norm


@pytest.mark.parametrize("rounding", ["max", "mse"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_extreme_decodes_within_its_bound_or_is_refused(
    name: str, dtype: torch.dtype, rounding: str
) -> None:
    bound = max(FORMATS[name].error_bound, 1e-7)
    for kind in KINDS:
        try:
            error = error_of(name, weight_of(kind, dtype), rounding)
        except FormatError as refused:
            assert "give this layer" in str(refused), (kind, refused)
        else:
            assert error <= bound * 1.001, (kind, error)  # also fails for NaN


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(QUANTIZED),
    dtype=st.sampled_from(DTYPES),
    exponent=st.integers(-149, 127),
    spread=st.integers(0, 60),
    seed=st.integers(0, 99),
)
def test_any_power_of_two(
    name: str, dtype: torch.dtype, exponent: int, spread: int, seed: int
) -> None:
    """Weights of any size, with rows that are smaller by up to ``spread`` powers of two."""
    limits = torch.finfo(dtype)
    rows = torch.linspace(0, spread, 16, dtype=torch.float64).neg().exp2().unsqueeze(1)
    values = torch.randn(16, 256, generator=torch.Generator().manual_seed(seed)).double()
    weight = (values / values.abs().max() * 2.0**exponent * rows).clamp(-limits.max, limits.max)
    try:
        assert error_of(name, weight.to(dtype), "max") <= FORMATS[name].error_bound * 1.001
    except FormatError as refused:
        assert "give this layer" in str(refused)


@pytest.mark.parametrize("name", ["nvfp4", "float8_e4m3fn", "float8_e5m2", "int8_rowwise"])
def test_the_largest_floats_are_encoded_not_refused(name: str) -> None:
    """Where the scale leaves room, nothing is lost: bf16 and float32 up to their largest value."""
    for dtype in (torch.bfloat16, torch.float32):
        error = error_of(name, weight_of("largest", dtype), "mse")
        assert error <= FORMATS[name].error_bound


def test_usual_weights_are_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fmt = FORMATS["nvfp4"]
    weight = torch.randn(32, 64)
    encoded = fmt.encode(weight, ROUNDINGS["max"], measure_error=True)
    monkeypatch.setattr(fmt, "decode", None)
    require_decodes(weight, encoded, fmt)


@pytest.mark.parametrize("shape", [(0, 256), (256, 0), (0, 0)])
def test_an_empty_weight_is_refused_by_name(shape: tuple[int, int]) -> None:
    with pytest.raises(FormatError, match=r"the weight is empty, its shape is \("):
        with_values(torch.empty(shape))


def saved(folder: Path, model: dict[str, torch.Tensor]) -> Path:
    save_file(model, folder / "source.safetensors")
    return folder / "source.safetensors"


def test_a_plan_keeps_empty_layers_and_says_so(tmp_path: Path, toy_wan: Toy) -> None:
    empty = {"extra.rows.weight": torch.ones(0, 64), "extra.columns.weight": torch.ones(64, 0)}
    source, target = saved(tmp_path, {**toy_wan(), **empty}), tmp_path / "out.safetensors"
    with open_source(source) as opened:
        plan = plan_of(opened, "* = nvfp4")
        convert(opened, plan, target)
    reasons = {layer.name: layer.reason for layer in plan.layers}
    assert (
        "so it is empty" in reasons["extra.rows"] and "so it is empty" in reasons["extra.columns"]
    )
    assert verify_checkpoint(target, source).problems == ()
    written = load_file(target)
    assert {name: tuple(written[name].shape) for name in empty} == {
        "extra.rows.weight": (0, 64),
        "extra.columns.weight": (64, 0),
    }


@pytest.mark.parametrize(
    ("fmt", "value"),
    [("mxfp8", 3.3e38), ("int8_convrot", 3.3e38), ("int8_rowwise", 1e-33), ("fp16", 1e-9)],
)
def test_a_conversion_names_the_layer_and_leaves_no_file(
    tmp_path: Path, toy_wan: Toy, fmt: str, value: float
) -> None:
    model = toy_wan()
    signs = model[f"{LAYER}.weight"].sign()
    model[f"{LAYER}.weight"] = (signs * value).to(torch.bfloat16)
    source, target = saved(tmp_path, model), tmp_path / "out.safetensors"
    with (
        open_source(source) as opened,
        pytest.raises(FormatError, match=rf"^{LAYER}\.weight: .*give this layer"),
    ):
        convert(opened, plan_of(opened, f"blocks.*.ffn.0 = {fmt}"), target)
    assert [path.name for path in tmp_path.iterdir()] == ["source.safetensors"]


@pytest.mark.parametrize("fmt", QUANTIZED)
def test_what_is_written_passes_its_own_verify(tmp_path: Path, toy_wan: Toy, fmt: str) -> None:
    """Large and small layers in one file; what one format refuses, the test leaves out."""
    model = toy_wan(width=256)
    for number, exponent in enumerate((127, 100, -60, -120)):
        name = f"blocks.{number}.ffn.0.weight"
        values = model[name].double()
        model[name] = (values / values.abs().max() * 2.0**exponent).to(torch.bfloat16)
    source, target = saved(tmp_path, model), tmp_path / "out.safetensors"
    kept = ""
    for _ in range(5):
        try:
            with open_source(source) as opened:
                convert(opened, plan_of(opened, f"{kept}* = {fmt}"), target)
            break
        except FormatError as refused:
            layer = str(refused).partition(".weight")[0]
            kept += f"{layer} = keep\n"
    assert verify_checkpoint(target, source).problems == ()
