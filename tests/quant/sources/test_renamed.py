"""Sources under ComfyUI's names: values, parts, fingerprints, text encoders, collisions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import StateDictSource, find_naming, in_comfy_names, open_source
from nvfp4_foundry.quant.sources.wan_names import wan_to_diffusers
from safetensors.torch import save_file

from tests.helpers.gguf_files import write_gguf

Toy = Callable[..., dict[str, torch.Tensor]]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_diffusers_wan_opens_as_comfys(toy_wan: Toy, tmp_path: Path, prefix: str) -> None:
    tensors = toy_wan()
    path = tmp_path / "diffusers.safetensors"
    save_file({prefix + wan_to_diffusers(n): t for n, t in tensors.items()}, path, {"a": "b"})
    plain = StateDictSource(tensors)
    with open_source(path) as source:
        assert set(source.tensors) == set(tensors)
        assert all(info.name == name for name, info in source.tensors.items())
        assert all(torch.equal(source.load(name), tensors[name]) for name in tensors)
        runs = source.load_runs("blocks.1.ffn.0.weight", [3, 70], 5)
        assert torch.equal(runs, plain.load_runs("blocks.1.ffn.0.weight", [3, 70], 5))
        assert source.fingerprint() == plain.fingerprint()
        assert source.metadata == {"a": "b"} and source.paths == (path,)
        assert any("WAN with the names of diffusers" in note for note in source.notes)
        with pytest.raises(SourceError, match=r"no tensor named blocks\.0\.attn1\.to_q\.weight"):
            source.load("blocks.0.attn1.to_q.weight")


def test_comfys_names_stay_and_so_does_the_source(toy_wan: Toy) -> None:
    source = StateDictSource(toy_wan())
    assert in_comfy_names(source) is source
    assert find_naming({"a.weight", "b"}) is None


def test_two_models_in_one_are_refused(toy_wan: Toy) -> None:
    tensors = {wan_to_diffusers(name): tensor for name, tensor in toy_wan(blocks=1).items()}
    tensors["head.head.bias"] = torch.zeros(64)
    with pytest.raises(SourceError, match=r"also has head\.head\.bias, so it may hold two models"):
        in_comfy_names(StateDictSource(tensors))


# Written by hand after llama.cpp's tensor_mapping.py and ComfyUI's text encoder classes.
T5 = {
    "token_embd.weight": "shared.weight",
    "enc.output_norm.weight": "encoder.final_layer_norm.weight",
    "enc.blk.0.attn_q.weight": "encoder.block.0.layer.0.SelfAttention.q.weight",
    "enc.blk.0.attn_k.weight": "encoder.block.0.layer.0.SelfAttention.k.weight",
    "enc.blk.0.attn_v.weight": "encoder.block.0.layer.0.SelfAttention.v.weight",
    "enc.blk.0.attn_o.weight": "encoder.block.0.layer.0.SelfAttention.o.weight",
    "enc.blk.0.attn_norm.weight": "encoder.block.0.layer.0.layer_norm.weight",
    "enc.blk.0.attn_rel_b.weight": (
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    ),
    "enc.blk.0.ffn_gate.weight": "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
    "enc.blk.0.ffn_up.weight": "encoder.block.0.layer.1.DenseReluDense.wi_1.weight",
    "enc.blk.0.ffn_down.weight": "encoder.block.0.layer.1.DenseReluDense.wo.weight",
    "enc.blk.0.ffn_norm.weight": "encoder.block.0.layer.1.layer_norm.weight",
}
QWEN = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
    "blk.0.attn_q.bias": "model.layers.0.self_attn.q_proj.bias",
    "blk.0.attn_k.weight": "model.layers.0.self_attn.k_proj.weight",
    "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
    "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
    "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
    "blk.0.ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
    "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
    "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
    "blk.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
}


@pytest.mark.parametrize("names", [T5, QWEN], ids=["t5", "qwen"])
def test_text_encoders_of_llama_cpp(names: dict[str, str], tmp_path: Path) -> None:
    tensors = {name: torch.full((2, 32), float(i)) for i, name in enumerate(names)}
    path = write_gguf(tmp_path / "encoder.gguf", tensors, "Q8_0", architecture="t5encoder")
    with open_source(path) as source:
        assert list(source.tensors) == list(names.values())
        for name, tensor in tensors.items():
            torch.testing.assert_close(source.load(names[name]), tensor, rtol=2e-3, atol=0)


def test_llama_is_left_alone() -> None:
    """A GGUF permutes the rows of its q and k, so new names alone would give noise."""
    names = {name for name in QWEN if not name.endswith(".bias")}
    assert find_naming(names) is None
