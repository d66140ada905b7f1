"""Refusals of files that cannot be quantized, and of folders with several models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file

from tests.helpers.gguf_files import write_gguf

Toy = Callable[..., dict[str, torch.Tensor]]

#: One name of each kind of VAE that ComfyUI knows.
VAES = {
    "MiniMax Music 3": ["dec_in_proj.weight", "decoder.model.0.weight_g"],
    "the audio of MiniMax H3": ["pre_block.attn.zero_k_bias"],
    "Stable Video Diffusion": ["decoder.mid.block_1.mix_factor", "decoder.conv_in.weight"],
    "TAESD": ["taesd_decoder.1.weight"],
    "Trellis 2": ["txt_dec.blocks.3.4.conv2.weight"],
    "LTX": ["decoder.conv_in_x_t.weight", "decoder.conv_in.weight"],
    "Hunyuan Video or CogVideoX": ["decoder.conv_in.conv.weight"],
    "WAN or Qwen-Image": ["decoder.middle.0.residual.0.gamma"],
    "Stable Audio 3": ["decoder.layers.3.transformers.0.pre_norm.alpha"],
    "Mochi": ["blocks.2.blocks.3.stack.5.weight"],
    "Hunyuan3D": ["geo_decoder.cross_attn_decoder.ln_1.bias"],
    "TAEHV": ["decoder.22.bias"],
}
REFUSED = {
    "a LoRA": ["diffusion_model.blocks.0.ffn.0.lora_A.weight"],
    "a LoRA ": ["lora_unet_blocks_0_ffn_0.lora_down.weight", "lora_unet_blocks_0_ffn_0.alpha"],
    "a VAE": ["decoder.conv_in.weight", "encoder.conv_in.weight"],
    "a VAE. ": ["decoder.conv1.weight", "decoder.middle.0.residual.0.gamma"],
    "GPTQ, AWQ or Nunchaku": ["transformer_blocks.0.qkv_proj.qweight", "b.bias"],
    "bitsandbytes": ["a.weight", "a.weight.quant_state.bitsandbytes__nf4"],
}


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_are_no_source(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({name: torch.ones(2, 2) for name in REFUSED[kind]}, path)
    with pytest.raises(SourceError, match=kind.strip()) as refused:
        open_source(path)
    assert str(path) in str(refused.value)


def test_a_file_without_tensors(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({}, path)
    with pytest.raises(SourceError, match="holds no tensors"):
        open_source(path)


def part(folder: Path, name: str, tensors: dict[str, torch.Tensor]) -> Path:
    (folder / name).mkdir()
    save_file(tensors, folder / name / "diffusion_pytorch_model.safetensors")
    return folder / name


def test_the_one_diffusion_model_of_a_pipeline_is_opened(toy_wan: Toy, tmp_path: Path) -> None:
    tensors = toy_wan()
    part(tmp_path, "vae", {"decoder.conv_in.weight": torch.ones(2, 2)})
    part(tmp_path, "transformer", tensors)
    (tmp_path / "model_index.json").write_text("{}")
    with open_source(tmp_path) as source:
        assert set(source.tensors) == set(tensors)


def test_a_pipeline_with_two_experts_asks_which(toy_wan: Toy, tmp_path: Path) -> None:
    parts = [part(tmp_path, name, toy_wan()) for name in ("transformer", "transformer_2")]
    with pytest.raises(SourceError, match="2 diffusion models") as refused:
        open_source(tmp_path)
    assert all(str(path) in str(refused.value) for path in parts)
    assert "high-noise" in str(refused.value)
    with open_source(parts[1]):
        pass


def test_the_gguf_of_a_folder(toy_wan: Toy, tmp_path: Path) -> None:
    write_gguf(tmp_path / "Q4.gguf", toy_wan(), "F16", flattened=("patch_embedding.weight",))
    with open_source(tmp_path) as source:
        assert source.paths == (tmp_path / "Q4.gguf",)
    write_gguf(tmp_path / "Q8.gguf", {"a": torch.ones(2, 2)})
    with pytest.raises(SourceError, match=r"several models: give one of Q4\.gguf, Q8\.gguf"):
        open_source(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no \.safetensors"):
        open_source(tmp_path)


@pytest.mark.parametrize("kind", VAES)
def test_vaes_are_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    save_file({name: torch.zeros(4, 4) for name in VAES[kind]}, path)
    message = rf"vae\.safetensors is a VAE \({kind}\); keep it as it is, because ComfyUI builds it"
    with pytest.raises(SourceError, match=message):
        open_source(path)


def test_the_one_vae_that_loads_quantized_is_a_source(tmp_path: Path) -> None:
    names = ["decoder.transformer_blocks.0.scale1", "encoder.down.5.block.0.conv1.weight"]
    path = tmp_path / "vae.safetensors"
    save_file({name: torch.zeros(4, 4) for name in names}, path)
    with open_source(path) as source:
        assert set(source.tensors) == set(names)


@pytest.mark.parametrize(
    "name",
    [
        "controlnet_blocks.0.weight", "control_model.zero_convs.0.0.weight",
        "control_blocks.0.after_proj.weight", "controlnet_cond_embedding.conv_in.weight",
        "after_proj_list.18.bias", "input_hint_block.0.weight",
    ],
)  # fmt: skip
def test_controlnets_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "control.safetensors"
    weights = {f"transformer_blocks.{i}.attn.to_q.weight": torch.ones(64, 64) for i in range(3)}
    save_file({**weights, name: torch.ones(64, 64)}, path)
    with pytest.raises(SourceError, match=rf"is a ControlNet \({name}\); keep it as it is"):
        open_source(path)
