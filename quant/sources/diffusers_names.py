"""The names of Flux.1, Flux.2 and Z-Image in diffusers, and where they go in ComfyUI.

Sources: the models of diffusers (transformer_flux.py, transformer_flux2.py,
transformer_z_image.py), its scripts convert_flux_to_diffusers.py and
convert_flux2_to_diffusers.py; compared with ComfyUI's own conversion in tests/comfyui.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .fused import Fusion, Place

_MLP_EMBEDDER = {"linear_1": "in_layer", "linear_2": "out_layer"}
_OUTSIDE: Mapping[str, Place] = {
    "x_embedder": Place("img_in"),
    "context_embedder": Place("txt_in"),
    # diffusers has scale and shift, ComfyUI shift and scale
    "norm_out.linear": Place("final_layer.adaLN_modulation.1", swaps_halves=True),
    "proj_out": Place("final_layer.linear"),
}
_FLUX1: Mapping[str, Place] = {
    **_OUTSIDE,
    **{
        f"time_text_embed.{theirs}.{layer}": Place(f"{ours}.{_MLP_EMBEDDER[layer]}")
        for theirs, ours in (
            ("timestep_embedder", "time_in"),
            ("text_embedder", "vector_in"),
            ("guidance_embedder", "guidance_in"),
        )
        for layer in _MLP_EMBEDDER
    },
}
_FLUX2: Mapping[str, Place] = {
    **_OUTSIDE,
    **{
        f"time_guidance_embed.{theirs}.{layer}": Place(f"{ours}.{_MLP_EMBEDDER[layer]}")
        for theirs, ours in (("timestep_embedder", "time_in"), ("guidance_embedder", "guidance_in"))
        for layer in _MLP_EMBEDDER
    },
    "double_stream_modulation_img.linear": Place("double_stream_modulation_img.lin"),
    "double_stream_modulation_txt.linear": Place("double_stream_modulation_txt.lin"),
    "single_stream_modulation.linear": Place("single_stream_modulation.lin"),
}


def _stacked(ours: str, *theirs: str) -> dict[str, Place]:
    return {name: Place(ours, number, len(theirs)) for number, name in enumerate(theirs)}


_DOUBLE: Mapping[str, Place] = {
    **_stacked("img_attn.qkv", "attn.to_q", "attn.to_k", "attn.to_v"),
    **_stacked("txt_attn.qkv", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "attn.to_out.0": Place("img_attn.proj"),
    "attn.to_add_out": Place("txt_attn.proj"),
    "attn.norm_q": Place("img_attn.norm.query_norm"),
    "attn.norm_k": Place("img_attn.norm.key_norm"),
    "attn.norm_added_q": Place("txt_attn.norm.query_norm"),
    "attn.norm_added_k": Place("txt_attn.norm.key_norm"),
    "norm1.linear": Place("img_mod.lin"),
    "norm1_context.linear": Place("txt_mod.lin"),
    "ff.net.0.proj": Place("img_mlp.0"),
    "ff.net.2": Place("img_mlp.2"),
    "ff_context.net.0.proj": Place("txt_mlp.0"),
    "ff_context.net.2": Place("txt_mlp.2"),
    # of Flux.2
    "ff.linear_in": Place("img_mlp.0"),
    "ff.linear_out": Place("img_mlp.2"),
    "ff_context.linear_in": Place("txt_mlp.0"),
    "ff_context.linear_out": Place("txt_mlp.2"),
}
_SINGLE: Mapping[str, Place] = {
    **_stacked("linear1", "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "proj_out": Place("linear2"),
    "norm.linear": Place("modulation.lin"),
    "attn.norm_q": Place("norm.query_norm"),
    "attn.norm_k": Place("norm.key_norm"),
    # of Flux.2
    "attn.to_qkv_mlp_proj": Place("linear1"),
    "attn.to_out": Place("linear2"),
}
_Z_ATTENTION: Mapping[str, Place] = {
    **_stacked("attention.qkv", "attention.to_q", "attention.to_k", "attention.to_v"),
    "attention.to_out.0": Place("attention.out"),
    "attention.norm_q": Place("attention.q_norm"),
    "attention.norm_k": Place("attention.k_norm"),
}
_Z_OUTSIDE: Mapping[str, Place] = {
    "all_x_embedder.2-1": Place("x_embedder"),
    "all_final_layer.2-1.linear": Place("final_layer.linear"),
    "all_final_layer.2-1.adaLN_modulation.1": Place("final_layer.adaLN_modulation.1"),
}
# Modules of Z-Image that have the same name in ComfyUI.
_Z_SAME = re.compile(
    r"(layers|context_refiner|noise_refiner)\.\d+\."
    r"(attention_norm[12]|ffn_norm[12]|feed_forward\.w[123]|adaLN_modulation\.0)"
    r"|x_pad_token|cap_pad_token|cap_embedder\.[01]|t_embedder\.mlp\.[02]"
)
_BLOCK = re.compile(r"(transformer_blocks|single_transformer_blocks)(\.\d+\.)(.+)")
_Z_BLOCK = re.compile(r"((?:layers|context_refiner|noise_refiner)\.\d+\.)(.+)")


def _flux_place(outside: Mapping[str, Place], module: str) -> Place | None:
    block = _BLOCK.fullmatch(module)
    if block is None:
        return outside.get(module)
    is_double = block[1] == "transformer_blocks"
    place = (_DOUBLE if is_double else _SINGLE).get(block[3])
    return place and _inside(f"{'double' if is_double else 'single'}_blocks{block[2]}", place)


def _z_image_place(module: str) -> Place | None:
    if _Z_SAME.fullmatch(module):
        return Place(module)
    block = _Z_BLOCK.fullmatch(module)
    if block is None:
        return _Z_OUTSIDE.get(module)
    place = _Z_ATTENTION.get(block[2])
    return place and _inside(block[1], place)


def _inside(block: str, place: Place) -> Place:
    return Place(block + place.module, place.part, place.parts, place.swaps_halves)


def _has(names: Iterable[str], *wanted: str) -> bool:
    return {f"{module}.weight" for module in wanted} <= set(names)


FUSIONS = (
    Fusion(
        "Flux.1 with the names of diffusers",
        lambda names: _has(
            names,
            "x_embedder",
            "time_text_embed.timestep_embedder.linear_1",
            "time_text_embed.text_embedder.linear_1",
            "transformer_blocks.0.attn.add_q_proj",
            "single_transformer_blocks.0.proj_mlp",
        ),
        lambda module: _flux_place(_FLUX1, module),
    ),
    Fusion(
        "Flux.2 with the names of diffusers",
        lambda names: _has(
            names,
            "x_embedder",
            "double_stream_modulation_img.linear",
            "transformer_blocks.0.attn.add_q_proj",
            "single_transformer_blocks.0.attn.to_qkv_mlp_proj",
        ),
        lambda module: _flux_place(_FLUX2, module),
    ),
    Fusion(
        "Z-Image with the names of diffusers",
        lambda names: _has(
            names, "all_x_embedder.2-1", "noise_refiner.0.attention.to_q", "layers.0.attention.to_q"
        ),
        _z_image_place,
    ),
)
