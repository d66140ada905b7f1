"""Tensors that are no weights but mean something to ComfyUI are carried along unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.sources import open_source
from nvfp4_foundry.quant.sources.wan_names import wan_to_diffusers
from safetensors.torch import load_file, save_file

from tests.helpers import quantized_files as qf
from tests.helpers.conversions import Toy, plan_of

NAME = "blocks.1.self_attn.comfy_attention.config"
CONFIG = torch.tensor(list(b'{"backend": "sage"}'), dtype=torch.uint8)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("kind", [None, "ComfyUI nvfp4", "scaled fp8"])
@pytest.mark.parametrize("rules", ["blocks.* = nvfp4", "* = bf16", "* = float8_e4m3fn", "* = keep"])
def test_settings_of_an_attention_are_kept(
    tmp_path: Path, toy_wan: Toy, prefix: str, kind: str | None, rules: str
) -> None:
    model = toy_wan(blocks=2)
    tensors = {**(qf.MAKERS[kind](model) if kind else model), NAME: CONFIG}
    path, target = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    beside = {"vae.w.weight": torch.ones(2, 2)} if prefix else {}
    save_file({prefix + n: t.contiguous() for n, t in tensors.items()} | beside, path)
    with open_source(path) as source:
        assert torch.equal(source.load(NAME), CONFIG)
        convert(source, plan_of(source, rules), target, whole_file=bool(prefix))
    found = load_file(target)[prefix + NAME]
    assert found.dtype == torch.uint8 and torch.equal(found, CONFIG)


def test_they_are_renamed_with_their_module(tmp_path: Path, toy_wan: Toy) -> None:
    tensors = {wan_to_diffusers(name): tensor for name, tensor in toy_wan(blocks=2).items()}
    tensors["blocks.1.attn1.comfy_attention.config"] = CONFIG
    tensors["blocks.0.attn2.comfy_attention.config"] = CONFIG.clone()
    save_file(tensors, tmp_path / "model.safetensors")
    with open_source(tmp_path / "model.safetensors") as source:
        assert torch.equal(source.load(NAME), CONFIG)
        assert "blocks.0.cross_attn.comfy_attention.config" in source.tensors
