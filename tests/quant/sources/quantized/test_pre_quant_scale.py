"""Weights whose inputs are scaled first: decoded to what multiplies the unscaled input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

from tests.helpers.conversions import plan_of
from tests.helpers.odd_files import BOUNDS, E4M3, marker, nvfp4, per_tensor
from tests.helpers.quantized_files import Tensors, with_weights

from .conftest import Judge

GENERATOR = torch.Generator().manual_seed(4)


def awq(weight: torch.Tensor, kind: str) -> Tensors:
    """Return a weight divided by a vector, which multiplies the input at run time."""
    scale = 2.0 ** torch.randint(-1, 2, (weight.shape[1],), generator=GENERATOR)
    scaled = weight / scale
    if kind == "float8":
        values, factor = per_tensor(scaled, E4M3)
        made = {
            "weight": values,
            "weight_scale": factor,
            "comfy_quant": marker(format="float8_e4m3fn"),
        }
    else:
        is_comfyui = kind == "nvfp4"
        made = nvfp4(scaled, tiled=is_comfyui, high_first=is_comfyui)
        if is_comfyui:
            made["comfy_quant"] = marker(format="nvfp4")
    return {**made, "pre_quant_scale": scale.bfloat16(), "input_scale": torch.tensor(0.01)}


def file(model: Tensors, kind: str) -> Tensors:
    return with_weights(
        model, lambda layer, weight: {f"{layer}.{s}": t for s, t in awq(weight, kind).items()}
    )


@pytest.mark.parametrize("kind", ["nvfp4", "ModelOpt", "float8"])
def test_the_vector_is_multiplied_into_the_columns(judge: Judge, model: Tensors, kind: str) -> None:
    error, notes = judge(file(model, kind))
    assert error < BOUNDS[E4M3 if kind == "float8" else torch.uint8] * 1.2
    assert any("pre_quant_scale (AWQ)" in note for note in notes)


def test_such_a_layer_is_encoded_anew(tmp_path: Path, model: Tensors) -> None:
    """ComfyUI 0.29 ignores the vector, so the codes cannot be taken over, nor the input scale."""
    path, target = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_file({n: t.contiguous() for n, t in file(model, "nvfp4").items()}, path)
    with open_source(path) as source:
        assert not source.comfyui_reads
        report = convert(source, plan_of(source, "blocks.* = nvfp4"), target)
        wanted = {n: source.load(n) for n in model}
    quantized = [layer for layer in report.layers if layer.format == "nvfp4"]
    assert quantized and all(layer.rounding == "max" for layer in quantized)
    written = load_file(target)
    assert not any(name.endswith(("pre_quant_scale", "input_scale")) for name in written)
    with open_source(target) as result:
        for layer in quantized:
            weight, got = wanted[f"{layer.name}.weight"], result.load(f"{layer.name}.weight")
            assert (got - weight).norm() / weight.norm() < BOUNDS[torch.uint8]


def test_a_vector_of_another_length_is_named(judge: Judge, model: Tensors) -> None:
    tensors = file(model, "nvfp4")
    tensors["blocks.0.ffn.2.pre_quant_scale"] = torch.ones(128)
    with pytest.raises(SourceError, match=r"blocks\.0\.ffn\.2\.pre_quant_scale .*256 columns"):
        judge(tensors)


def test_a_vector_beside_an_unquantized_weight_is_refused(judge: Judge, model: Tensors) -> None:
    tensors = {**model, "blocks.0.ffn.0.pre_quant_scale": torch.ones(128)}
    with pytest.raises(SourceError, match=r"ffn\.0\.pre_quant_scale does not belong"):
        judge(tensors)
