"""Translate WAN's layer names between diffusers and ComfyUI.

Source: ``scripts/convert_wan_to_diffusers.py`` of diffusers, checked against the published key
lists of both kinds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_OUTSIDE: Mapping[str, str] = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos",
    "scale_shift_table": "head.modulation",
    "proj_out": "head.head",
}
_INSIDE: Mapping[str, str] = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "attn2.norm_added_k": "cross_attn.norm_k_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    # diffusers counts the norms in the order they are called in
    "norm2": "norm3",
    "norm3": "norm2",
    "scale_shift_table": "modulation",
    "attn1.comfy_attention": "self_attn.comfy_attention",  # settings of an attention
    "attn2.comfy_attention": "cross_attn.comfy_attention",
    "proj_in": "before_proj",  # of VACE blocks, as the next
    "proj_out": "after_proj",
}
_BLOCK = re.compile(r"((?:vace_)?blocks\.\d+\.)(.+)")


def is_wan_of_diffusers(names: Iterable[str]) -> bool:
    """Whether these are the names of a WAN model in diffusers."""
    found = set(names)
    return {
        "condition_embedder.time_proj.weight",
        "blocks.0.attn1.to_q.weight",
        "blocks.0.attn2.to_q.weight",
    } <= found


def wan_to_comfy(name: str) -> str:
    """Return ComfyUI's name of a tensor for its name in diffusers. Other names do not change."""
    return _renamed(name, _OUTSIDE, _INSIDE)


def wan_to_diffusers(name: str) -> str:
    """Return the name of a tensor in diffusers for ComfyUI's name. Inverts `wan_to_comfy`."""
    return _renamed(name, _turned(_OUTSIDE), _turned(_INSIDE))


def _turned(names: Mapping[str, str]) -> dict[str, str]:
    return {comfy: diffusers for diffusers, comfy in names.items()}


def _renamed(name: str, outside: Mapping[str, str], inside: Mapping[str, str]) -> str:
    block = _BLOCK.fullmatch(name)
    if block:
        return block[1] + _replaced(block[2], inside)
    return _replaced(name, outside)


def _replaced(name: str, names: Mapping[str, str]) -> str:
    """Replace the module in a name: the whole name, or the part before the last dot."""
    if name in names:
        return names[name]
    module, dot, leaf = name.rpartition(".")
    return f"{names.get(module, module)}{dot}{leaf}"
