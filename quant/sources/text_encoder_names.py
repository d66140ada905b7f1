"""Translate llama.cpp's layer names of text encoders, as in a GGUF, to ComfyUI's names.

Source: ``gguf-py/gguf/tensor_mapping.py`` of llama.cpp. Llama and Mistral are left out, because
llama.cpp's converter also permutes the rows of their q and k.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_T5_OUTSIDE: Mapping[str, str] = {
    "token_embd": "shared",
    "enc.output_norm": "encoder.final_layer_norm",
}
_T5_INSIDE: Mapping[str, str] = {
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "attn_norm": "layer.0.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
    "ffn_norm": "layer.1.layer_norm",
}
_QWEN_OUTSIDE: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_QWEN_INSIDE: Mapping[str, str] = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
_T5_BLOCK = re.compile(r"enc\.blk\.(\d+)\.(\w+)(\.\w+)")
_QWEN_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)(\.\w+)")


def is_t5_of_llama_cpp(names: Iterable[str]) -> bool:
    """Whether these are the names of a T5 encoder (v1.1, UMT5) as llama.cpp has them."""
    return {"enc.blk.0.attn_q.weight", "enc.blk.0.ffn_gate.weight"} <= set(names)


def is_qwen_of_llama_cpp(names: Iterable[str]) -> bool:
    """Whether these are the names of Qwen 2, 2.5-VL or 3 as llama.cpp has them.

    The biases of q, or the norms of q, tell them from Llama.
    """
    found = set(names)
    own = ("blk.0.attn_q.bias", "blk.0.attn_q_norm.weight")
    return "blk.0.attn_output.weight" in found and any(name in found for name in own)


def t5_to_comfy(name: str) -> str:
    """Return ComfyUI's name of a T5 tensor; names that are not llama.cpp's stay as they are."""
    block = _T5_BLOCK.fullmatch(name)
    if block and block[2] in _T5_INSIDE:
        return f"encoder.block.{block[1]}.{_T5_INSIDE[block[2]]}{block[3]}"
    return _replaced(name, _T5_OUTSIDE)


def qwen_to_comfy(name: str) -> str:
    """Return ComfyUI's name of a Qwen tensor; names that are not llama.cpp's stay as they are."""
    block = _QWEN_BLOCK.fullmatch(name)
    if block and block[2] in _QWEN_INSIDE:
        return f"model.layers.{block[1]}.{_QWEN_INSIDE[block[2]]}{block[3]}"
    return _replaced(name, _QWEN_OUTSIDE)


def _replaced(name: str, names: Mapping[str, str]) -> str:
    module, dot, leaf = name.rpartition(".")
    return f"{names.get(module, module)}{dot}{leaf}"
