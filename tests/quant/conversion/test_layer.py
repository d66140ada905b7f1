"""One layer: the tensors written for it, and its report."""

from __future__ import annotations

import json

import pytest
import torch
from nvfp4_foundry.quant.calibration import ScaleDecision
from nvfp4_foundry.quant.conversion.layer import encode_layer, input_scale_of, stored_name
from nvfp4_foundry.quant.errors import FormatError
from nvfp4_foundry.quant.formats import FORMATS, get_format
from nvfp4_foundry.quant.planning import Layer, PlannedLayer, inventory_of
from nvfp4_foundry.quant.planning.plan import stored_bytes
from nvfp4_foundry.quant.sources import TensorInfo

STATIC = ScaleDecision("static: for this test", amax=26.88)
SHAPE = (64, 256)


def layer_of(name: str = "blocks.0.ffn.0", suffix: str = ".weight") -> Layer:
    infos = [TensorInfo(f"{name}{suffix}", SHAPE, torch.bfloat16)]
    if suffix:
        infos.append(TensorInfo(f"{name}.bias", SHAPE[:1], torch.bfloat16))
    return inventory_of(infos).layers[name]


def planned(layer: Layer, fmt: str) -> PlannedLayer:
    size = stored_bytes(layer, get_format(fmt))
    return PlannedLayer(
        layer.name, layer.kind, layer.shape, "bfloat16", fmt, "a reason", layer.nbytes, size
    )


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)


@pytest.mark.parametrize("name", [n for n, fmt in FORMATS.items() if fmt.is_quantized])
def test_every_format_is_written_with_marker_and_scale(name: str, weight: torch.Tensor) -> None:
    layer, fmt = layer_of(), get_format(name)
    tensors, report = encode_layer(layer, planned(layer, name), weight, "max", STATIC, None)
    wanted = {*fmt.tensor_specs(SHAPE, torch.bfloat16), "comfy_quant"}
    wanted |= {"input_scale"} if fmt.activation_divisor else set()
    assert {n.removeprefix("blocks.0.ffn.0.") for n in tensors} == wanted
    marker = bytes(tensors["blocks.0.ffn.0.comfy_quant"].tolist())
    assert json.loads(marker) == fmt.marker_for(SHAPE)
    if fmt.activation_divisor:
        stored = tensors["blocks.0.ffn.0.input_scale"]
        assert stored.shape == () and stored.dtype == torch.float32
        assert float(stored) == pytest.approx(26.88 / fmt.activation_divisor)
    decoded = fmt.decode({n.rpartition(".")[2]: t for n, t in tensors.items()}, SHAPE)
    error = float((decoded - weight.float()).norm() / weight.float().norm())
    assert report.weight_error == pytest.approx(error, rel=1e-3)
    assert (report.format, report.reason, report.rounding) == (name, "a reason", "max")
    assert report.bytes_after == sum(t.nbytes for t in tensors.values()) + 2 * SHAPE[0]


def test_without_a_decision_the_runtime_scales(weight: torch.Tensor) -> None:
    layer = layer_of()
    tensors, report = encode_layer(layer, planned(layer, "nvfp4"), weight, "max", None, None)
    assert "blocks.0.ffn.0.input_scale" not in tensors
    assert report.input_scale is None and report.runtime_scale == "dynamic"
    assert input_scale_of(get_format("nvfp4_w4a16"), STATIC) is None


def test_a_merged_weight_is_stored_in_the_dtype_of_its_source(weight: torch.Tensor) -> None:
    layer = layer_of()
    wider = weight.float() + 2**-20
    tensors, report = encode_layer(layer, planned(layer, "keep"), wider, "max", None, None)
    assert list(tensors) == ["blocks.0.ffn.0.weight"]
    assert torch.equal(tensors["blocks.0.ffn.0.weight"], wider.to(torch.bfloat16))
    assert report.weight_error is None and report.rounding == ""


def test_a_bare_parameter_keeps_its_name(weight: torch.Tensor) -> None:
    layer = layer_of("blocks.0.modulation", suffix="")
    assert stored_name(layer, "weight") == "blocks.0.modulation"
    tensors, _ = encode_layer(layer, planned(layer, "fp32"), weight, "max", None, None)
    assert list(tensors) == ["blocks.0.modulation"]


def test_codes_that_are_there_are_not_changed(weight: torch.Tensor) -> None:
    layer, fmt = layer_of(), get_format("nvfp4")
    stored, _ = encode_layer(layer, planned(layer, "nvfp4"), weight, "mse", None, None)
    parts = {n.rpartition(".")[2]: t for n, t in stored.items() if "comfy_quant" not in n}
    tensors, report = encode_layer(layer, planned(layer, "nvfp4"), parts, "max", None, None)
    assert all(tensors[f"blocks.0.ffn.0.{suffix}"] is part for suffix, part in parts.items())
    assert set(parts) == set(fmt.tensor_specs(SHAPE, torch.bfloat16))
    assert (report.rounding, report.weight_error) == ("source", 0.0)


def test_an_unusable_weight_is_named(weight: torch.Tensor) -> None:
    weight[3, 5] = torch.nan
    layer = layer_of()
    with pytest.raises(FormatError, match=r"^blocks\.0\.ffn\.0\.weight: .*NaN"):
        encode_layer(layer, planned(layer, "nvfp4"), weight, "max", None, None)
