"""Text encoders, recognised by the keys that ComfyUI's ``detect_te_model`` looks at.

ComfyUI builds most of them with layers that load quantized weights. It builds some from plain
layers whatever the file holds: those are recognised to be refused.
"""

from __future__ import annotations

from ..layers import Inventory
from .architecture import Architecture, describe_blocks

_XXL_WIDTH = 10240
_FEED_FORWARD = "encoder.block.23.layer.1.DenseReluDense"
_RELATIVE = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias"
_BYT5_WIDTH = 384
_CLIP = ("text_model.encoder.layers.0.mlp.fc1", "transformer.resblocks.0.mlp.c_fc")
_PLAIN_LAYERS = (
    "ComfyUI builds this encoder from layers that do not load quantized weights; keep it as it is"
)
_PLAIN = {
    "model.encoder.layers.0.mixer.Wqkv": ("jina-clip-2", "the Jina CLIP 2 text encoder"),
    "model.encoder.layers.0.pre_self_attn_layernorm": ("t5-gemma", "the T5Gemma text encoder"),
    "bert.encoder.layer.0.attention.self.query": ("bert", "the BERT text encoder"),
    "vision_model.encoder.layers.0.mlp.fc1": ("clip-vision", "a CLIP vision encoder"),
}


def t5(inventory: Inventory) -> Architecture | None:
    """Recognise T5-XXL and UMT5-XXL, which has a position bias in every block."""
    key = inventory.shape_of("encoder.block.0.layer.0.SelfAttention.k")
    if key is None:
        return None
    facts = describe_blocks(inventory, "encoder.block")
    rows = (inventory.shape_of(f"{_FEED_FORWARD}.wi_1") or (0,))[0]
    if not rows and f"{_FEED_FORWARD}.wi" in inventory.layers:
        return Architecture(
            "t5-xxl", "T5-XXL text encoder, first version", facts, is_text_encoder=True
        )
    if rows != _XXL_WIDTH:
        problem = "ComfyUI loads quantized T5 only as T5-XXL or UMT5-XXL; keep it as it is"
        if key[0] == _BYT5_WIDTH:
            return Architecture("byt5", "the ByT5 text encoder", facts, problem)
        return Architecture("t5", "a T5 text encoder", facts, problem)
    if _RELATIVE in inventory.layers:
        return Architecture("umt5-xxl", "UMT5-XXL text encoder", facts, is_text_encoder=True)
    return Architecture("t5-xxl", "T5-XXL text encoder", facts, is_text_encoder=True)


def unquantizable_text_encoder(inventory: Inventory) -> Architecture | None:
    """Recognise the text and picture encoders that ComfyUI builds from plain layers."""
    if any(name in inventory.layers for name in _CLIP):
        problem = "ComfyUI does not load quantized CLIP text encoders; keep it as it is"
        return Architecture("clip", "a CLIP text encoder", problem=problem)
    for layer, identity in _PLAIN.items():
        if layer in inventory.layers and not _is_language_model(inventory):
            return Architecture(*identity, problem=_PLAIN_LAYERS)
    return None


def _is_language_model(inventory: Inventory) -> bool:
    """Whether a tower for pictures is part of a language model, as in Gemma 3."""
    return "model.layers.0.self_attn.q_proj" in inventory.layers
