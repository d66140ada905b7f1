"""Emulated activations equal comfy-kitchen's bits; the emulated product is close to float64."""

from __future__ import annotations

from collections.abc import Mapping

import comfy_kitchen
import pytest
import torch
from nvfp4_foundry.quant.calibration import ActivationCollector
from nvfp4_foundry.quant.errors import CheckpointError
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.formats.e2m1 import round_to_e2m1
from nvfp4_foundry.quant.hardware.emulation import (
    InputRounding,
    emulate_native_product,
    emulated_layers,
    read_input_roundings,
)
from nvfp4_foundry.quant.rounding import MaxRule
from nvfp4_foundry.quant.sources import StateDictSource
from nvfp4_foundry.quant.sources.stored_layers import MARKER
from torch import nn

SHAPES = [(1, 16), (17, 33), (130, 80), (256, 256), (1040, 528), (3, 1), (129, 4112)]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
# None: the scale of the call. 1e-3 clips much of the values, 0.2 flushes many blocks to zero.
INPUT_SCALES = [None, 1e-3, 0.0123, 0.2]
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def activations(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Return rows of very different magnitude, as in activations."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return (x * 8 * torch.rand((*shape[:-1], 1), generator=generator) ** 4).to(dtype)


def kitchen_nvfp4(x: torch.Tensor, input_scale: float | None) -> torch.Tensor:
    """Return an input as rounded by ComfyUI's layout and comfy-kitchen, as float32."""
    scale = x.abs().amax() / 2688 if input_scale is None else torch.tensor(input_scale)
    scale = scale.float()
    codes, blocks = comfy_kitchen.quantize_nvfp4(x, scale, pad_16x=True)
    decoded = comfy_kitchen.dequantize_nvfp4(codes, scale, blocks, torch.float32)
    return decoded[: x.shape[0], : x.shape[1]]


@pytest.mark.parametrize("input_scale", INPUT_SCALES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nvfp4_bits_equal_comfy_kitchen(
    shape: tuple[int, int], dtype: torch.dtype, input_scale: float | None
) -> None:
    x = activations(shape, dtype)
    before = x.clone()
    emulated = get_format("nvfp4").emulate_activations(x, input_scale)
    assert torch.equal(emulated, kitchen_nvfp4(x, input_scale))
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float8_equals_the_formula_and_comfy_kitchen(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    fmt = get_format("float8_e4m3fn")
    x = activations(shape, dtype) * 30
    for input_scale in (None, 0.5, 0.037):
        scale = torch.tensor(1.0 if input_scale is None else input_scale)
        emulated = fmt.emulate_activations(x, input_scale)
        codes = (x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
        assert torch.equal(emulated, codes.float() * scale)
        kitchen = comfy_kitchen.quantize_per_tensor_fp8(x, scale).float() * scale
        if input_scale != 0.037:  # the reciprocal of a power of two is exact
            assert torch.equal(emulated, kitchen)
        else:
            assert float((emulated - kitchen).norm() / emulated.norm().clamp(min=1e-9)) < 0.02


@pytest.mark.parametrize("name", ["nvfp4", "float8_e4m3fn"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_result_in_another_dtype_is_the_rounded_float32_one(name: str, dtype: torch.dtype) -> None:
    x = activations((70, 100), torch.bfloat16)
    exact = get_format(name).emulate_activations(x, None)
    assert torch.equal(get_format(name).emulate_activations(x, None, dtype), exact.to(dtype))


@pytest.mark.parametrize("input_scale", [None, 0.0, 1e-3], ids=str)
def test_nothing_in_gives_nothing_out(input_scale: float | None) -> None:
    zeros = torch.zeros(5, 40)
    assert torch.equal(get_format("nvfp4").emulate_activations(zeros, input_scale), zeros)


def test_scales_that_underflow_give_zeros() -> None:
    tiny = torch.full((4, 32), 1e-5, dtype=torch.float16)  # / 2688 is zero in fp16
    for x, scale in ((tiny, None), (torch.randn(4, 32), 0.0)):
        emulated = get_format("nvfp4").emulate_activations(x, scale)
        assert torch.equal(emulated, torch.zeros(4, 32))


def test_nan_spoils_its_block_and_no_other() -> None:
    x = activations((20, 40), torch.float32)
    spoiled = x.clone()
    spoiled[3, 20] = torch.nan
    fmt = get_format("nvfp4")
    wanted, emulated = fmt.emulate_activations(x, 0.01), fmt.emulate_activations(spoiled, 0.01)
    assert bool(emulated[3, 16:32].isnan().all())
    emulated[3, 16:32] = wanted[3, 16:32]
    assert torch.equal(emulated, wanted)


def test_rounding_to_e2m1_takes_the_nearest_value_and_even_codes_at_ties() -> None:
    halves = (E2M1[1:] + E2M1[:-1]) / 2
    near = torch.cat([halves * (1 - 1e-6), halves * (1 + 1e-6)])
    magnitudes = torch.cat([E2M1, near, torch.linspace(0, 8, 5001)])
    values = torch.cat([magnitudes, -magnitudes])
    distance = (values.abs().clamp(max=6).double()[:, None] - E2M1.double()).abs()
    # of two nearest the even code
    best = (distance - 1e-12 * torch.tensor([1, 0] * 4)).argmin(1)
    rounded = values.clone()
    round_to_e2m1(rounded, torch.empty_like(values))
    assert torch.equal(rounded, E2M1[best].copysign(values))


# --- the product ---------------------------------------------------------------------------------


def stored(
    formats: Mapping[str, str], input_scale: float | None = None
) -> tuple[nn.ModuleDict, StateDictSource]:
    """Return Linear layers (64 -> 48) with decoded weights, and their checkpoint."""
    generator = torch.Generator().manual_seed(3)
    model, tensors = nn.ModuleDict(), {}
    for name, format_name in formats.items():
        fmt = get_format(format_name)
        weight = torch.randn(48, 64, generator=generator)
        encoded = fmt.encode(weight, MaxRule()).tensors
        tensors |= {f"{name}.{suffix}": tensor for suffix, tensor in encoded.items()}
        if fmt.marker is not None:
            text = str(dict(fmt.marker)).replace("'", '"').replace("True", "true")
            tensors[f"{name}.{MARKER}"] = torch.frombuffer(
                bytearray(text.encode()), dtype=torch.uint8
            )
            if input_scale is not None:
                tensors[f"{name}.input_scale"] = torch.tensor(input_scale)
        linear = nn.Linear(64, 48)
        with torch.no_grad():
            linear.weight.copy_(fmt.decode(encoded, (48, 64)))
        model[name] = linear
    return model, StateDictSource(tensors)


def hook_count(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("name", ["nvfp4", "float8_e4m3fn"])
@pytest.mark.parametrize("input_scale", [None, 0.02], ids=str)
@torch.no_grad()
def test_emulated_product_against_float64(name: str, input_scale: float | None) -> None:
    model, checkpoint = stored({"layer": name}, input_scale)
    x = activations((2, 7, 64), torch.float32)
    scale = 1.0 if input_scale is None else torch.tensor(input_scale)
    rounded = (
        kitchen_nvfp4(x.view(14, 64), input_scale)
        if name == "nvfp4"
        else (x.view(14, 64) / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    ).view(2, 7, 64)
    layer = model["layer"]
    exact = rounded.double() @ layer.weight.double().T + layer.bias.double()
    plain = layer(x)
    with emulate_native_product(model, read_input_roundings(checkpoint)):
        emulated, by_keyword = layer(x), layer(input=x)
    assert float((emulated - exact).norm() / exact.norm()) < 1e-6
    assert torch.equal(emulated, by_keyword)
    assert float((plain - exact).norm() / exact.norm()) > 1e-3
    assert torch.equal(layer(x), plain)


@torch.no_grad()
def test_only_layers_with_a_native_product_are_touched() -> None:
    formats = ["nvfp4", "nvfp4_w4a16", "float8_e4m3fn", "bf16", "keep"]
    model, checkpoint = stored({name: name for name in formats})
    roundings = read_input_roundings(checkpoint)
    assert set(roundings) == {"nvfp4", "float8_e4m3fn"}
    x = activations((9, 64), torch.float32)
    plain = {name: model[name](x) for name in formats}
    with emulate_native_product(model, roundings):
        changed = {name for name in formats if not torch.equal(model[name](x), plain[name])}
    assert changed == {"nvfp4", "float8_e4m3fn"}


def test_full_precision_float8_is_not_rounded() -> None:
    tensors = dict(get_format("float8_e4m3fn").encode(torch.randn(48, 64), MaxRule()).tensors)
    text = b'{"format": "float8_e4m3fn", "full_precision_matrix_mult": true}'
    tensors[MARKER] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    source = StateDictSource({f"layer.{suffix}": tensor for suffix, tensor in tensors.items()})
    assert read_input_roundings(source) == {}


def test_layers_this_machine_multiplies_natively_are_skipped() -> None:
    model, checkpoint = stored({"here": "nvfp4", "forced": "nvfp4", "plain": "nvfp4"})
    model["here"]._full_precision_mm = False
    model["forced"]._full_precision_mm = True
    assert set(emulated_layers(model, read_input_roundings(checkpoint))) == {"forced", "plain"}


def test_static_scale_comes_from_the_checkpoint() -> None:
    _, checkpoint = stored({"layer": "nvfp4"}, input_scale=0.25)
    assert read_input_roundings(checkpoint)["layer"] == InputRounding(get_format("nvfp4"), 0.25)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_gone_after_exceptions(error: type[BaseException]) -> None:
    model, checkpoint = stored({"a": "nvfp4", "b": "float8_e4m3fn"})
    with pytest.raises(error), emulate_native_product(model, read_input_roundings(checkpoint)):
        assert hook_count(model) == 2
        raise error
    assert hook_count(model) == 0


def test_a_missing_layer_is_named_and_no_hook_stays() -> None:
    model, checkpoint = stored({"a": "nvfp4", "b": "nvfp4"})
    del model["b"]
    with (
        pytest.raises(CheckpointError, match="no layer b"),
        emulate_native_product(model, read_input_roundings(checkpoint)),
    ):
        pass
    assert hook_count(model) == 0


@torch.no_grad()
def test_calibration_sees_the_inputs_as_they_were() -> None:
    model, checkpoint = stored({"layer": "nvfp4"}, input_scale=0.3)  # most blocks become zeros
    x = activations((9, 64), torch.float32)
    collector = ActivationCollector()
    with collector.observe(model), emulate_native_product(model, read_input_roundings(checkpoint)):
        model["layer"](x)
    weights = model.state_dict()
    statistics = collector.snapshot(StateDictSource(weights).fingerprint())
    layer = statistics.layers["layer"]
    assert layer.amax == float(x.abs().max())
    assert set(map(tuple, layer.rows.float().tolist())) <= set(map(tuple, x.tolist()))


@pytest.mark.parametrize("x", [torch.randn(64), torch.zeros(0, 64)], ids=["1-D", "empty"])
@torch.no_grad()
def test_inputs_the_runtime_does_not_quantize_pass_unchanged(x: torch.Tensor) -> None:
    model, checkpoint = stored({"layer": "nvfp4"})
    plain = model["layer"](x)
    with emulate_native_product(model, read_input_roundings(checkpoint)):
        assert torch.equal(model["layer"](x), plain)
