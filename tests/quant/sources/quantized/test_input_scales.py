"""Static input scales of sources that mean nothing are dropped, with a note."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import load_file, save_file

from tests.helpers import quantized_files as qf
from tests.helpers.conversions import Toy, plan_of

ODD = [-0.01, 0.0, 1e-30, float("nan"), float("inf"), 1e30]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("kind", ["ComfyUI nvfp4", "ModelOpt", "ComfyUI float8", "scaled fp8"])
def test_an_odd_scale_is_dropped_and_named(
    tmp_path: Path, toy_wan: Toy, kind: str, value: float
) -> None:
    suffix = "scale_input" if kind == "scaled fp8" else "input_scale"
    tensors = qf.MAKERS[kind](toy_wan(blocks=1))
    layers = [n[:-7] for n in tensors if n.endswith(".weight") and tensors[n].dtype.itemsize == 1]
    tensors |= {f"{layer}.{suffix}": torch.tensor(0.002) for layer in layers}
    tensors[f"blocks.0.ffn.0.{suffix}"] = torch.tensor(value)
    path, target = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    fmt = "nvfp4" if kind in ("ComfyUI nvfp4", "ModelOpt") else "float8_e4m3fn"
    with open_source(path) as source:
        odd, sound = (source.stored_weight(f"blocks.0.ffn.{n}.weight") for n in (0, 2))
        assert odd is not None and odd.input_amax() is None
        assert sound is not None and sound.input_amax() == pytest.approx(
            0.002 * (2688 if fmt == "nvfp4" else 448), rel=1e-4
        )
        (note,) = [note for note in source.notes if "dropped" in note]
        assert "1 input scales" in note and "blocks.0.ffn.0 (" in note
        convert(source, plan_of(source, f"blocks.* = {fmt}", input_scale="amax"), target)
    written = load_file(target)
    assert "blocks.0.ffn.0.input_scale" not in written
    assert float(written["blocks.0.ffn.2.input_scale"]) == pytest.approx(0.002, rel=1e-4)


@pytest.mark.parametrize("kind", ["LightX2V", "LightX2V, older", "compressed-tensors"])
def test_odd_divisors_too(tmp_path: Path, toy_wan: Toy, kind: str) -> None:
    tensors = qf.MAKERS[kind](toy_wan(blocks=1))
    name = "input_absmax" if "older" in kind else "input_global_scale"
    value = torch.tensor([float("inf")]) if kind == "compressed-tensors" else torch.tensor(-3.0)
    if kind == "LightX2V":  # alpha is divided by it
        value = torch.tensor(1e30)
        tensors["blocks.0.ffn.0.alpha"] = tensors["blocks.0.ffn.0.alpha"] * 0
    tensors[f"blocks.0.ffn.0.{name}"] = value
    path = tmp_path / "model.safetensors"
    save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    with open_source(path) as source:
        stored = source.stored_weight("blocks.0.ffn.0.weight")
        assert stored is not None and stored.input_amax() is None
