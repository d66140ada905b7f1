"""Text encoders: T5 and language models, with the layer names that ComfyUI reads."""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks

_XXL_WIDTH = 10240
_FEED_FORWARD = "encoder.block.23.layer.1.DenseReluDense"
_RELATIVE = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias"
_CLIP = ("text_model.encoder.layers.0.mlp.fc1", "transformer.resblocks.0.mlp.c_fc")
_LANGUAGE_MODELS = ("model.layers", "model.language_model.layers")


def t5(inventory: Inventory) -> Architecture | None:
    """Recognise T5-XXL and UMT5-XXL, which has a position bias in every block."""
    if "encoder.block.0.layer.0.SelfAttention.k" not in inventory.layers:
        return None
    facts = describe_blocks(inventory, "encoder.block")
    if f"{_FEED_FORWARD}.wi" in inventory.layers:
        return Architecture(
            "t5-xxl", "T5-XXL text encoder, first version", facts, is_text_encoder=True
        )
    if (inventory.shape_of(f"{_FEED_FORWARD}.wi_1") or (0,))[0] != _XXL_WIDTH:
        problem = "ComfyUI loads quantized T5 only as T5-XXL or UMT5-XXL; keep it as it is"
        return Architecture("t5", "a T5 text encoder", facts, problem)
    if _RELATIVE in inventory.layers:
        return Architecture("umt5-xxl", "UMT5-XXL text encoder", facts, is_text_encoder=True)
    return Architecture("t5-xxl", "T5-XXL text encoder", facts, is_text_encoder=True)


def language_model(inventory: Inventory) -> Architecture | None:
    """Recognise language models; Qwen2.5-VL by its biases and its visual tower."""
    for container in _LANGUAGE_MODELS:
        shape = inventory.shape_of(f"{container}.0.self_attn.q_proj")
        if shape:
            facts = f"width {shape[1]}, {describe_blocks(inventory, container)}"
            kind = ("language-model", "a language model as text encoder")
            if "visual.patch_embed.proj" in inventory.layers and _has_biases(inventory, container):
                kind = ("qwen2.5-vl", "Qwen2.5-VL text encoder")
            return Architecture(*kind, facts, is_text_encoder=True)
    return None


def unquantizable_text_encoder(inventory: Inventory) -> Architecture | None:
    """Recognise CLIP. ComfyUI always builds it from plain layers, so it cannot be quantized."""
    if not any(name in inventory.layers for name in _CLIP):
        return None
    problem = "ComfyUI does not load quantized CLIP text encoders; keep it as it is"
    return Architecture("clip", "a CLIP text encoder", problem=problem)


def _has_biases(inventory: Inventory, container: str) -> bool:
    return bool(inventory.layers[f"{container}.0.self_attn.q_proj"].companions)
