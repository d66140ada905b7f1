"""WAN's two sets of names: mapped both ways on the whole lists of the real models."""

from __future__ import annotations

from types import ModuleType

import pytest
from nvfp4_foundry.quant.sources.wan_names import (
    is_wan_of_diffusers,
    wan_to_comfy,
    wan_to_diffusers,
)

SIZES = {
    "wan2.2-ti2v-5b": (3072, 14336, 30, 48, 48),
    "wan2.2-t2v-14b": (5120, 13824, 40, 16, 16),
    "wan2.2-i2v-14b": (5120, 13824, 40, 36, 16),
}
# What WAN 2.1 image-to-video, first-last-frame and VACE have besides, from ComfyUI's model code
# and the conversion script of diffusers.
FURTHER = {
    "img_emb.proj.0.weight": "condition_embedder.image_embedder.norm1.weight",
    "img_emb.proj.1.bias": "condition_embedder.image_embedder.ff.net.0.proj.bias",
    "img_emb.proj.3.weight": "condition_embedder.image_embedder.ff.net.2.weight",
    "img_emb.proj.4.bias": "condition_embedder.image_embedder.norm2.bias",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "blocks.7.cross_attn.k_img.weight": "blocks.7.attn2.add_k_proj.weight",
    "blocks.7.cross_attn.v_img.bias": "blocks.7.attn2.add_v_proj.bias",
    "blocks.7.cross_attn.norm_k_img.weight": "blocks.7.attn2.norm_added_k.weight",
    "vace_blocks.0.before_proj.weight": "vace_blocks.0.proj_in.weight",
    "vace_blocks.3.after_proj.bias": "vace_blocks.3.proj_out.bias",
    "vace_blocks.3.norm3.bias": "vace_blocks.3.norm2.bias",
    "vace_patch_embedding.weight": "vace_patch_embedding.weight",
}


@pytest.mark.parametrize("model", SIZES)
def test_round_trip_on_whole_models(model: str, manifests: ModuleType) -> None:
    comfy = manifests.MODELS[model]()
    diffusers = manifests.wan_of_diffusers(*SIZES[model])
    assert len(comfy) == len(diffusers) == {30: 825, 40: 1095}[SIZES[model][2]]
    assert {wan_to_comfy(name): shape for name, shape in diffusers.items()} == comfy
    assert {wan_to_diffusers(name): shape for name, shape in comfy.items()} == diffusers
    assert is_wan_of_diffusers(diffusers) and not is_wan_of_diffusers(comfy)


def test_further_kinds_of_wan() -> None:
    assert {name: wan_to_diffusers(name) for name in FURTHER} == FURTHER
    assert {wan_to_comfy(name): name for name in FURTHER.values()} == FURTHER


def test_other_names_are_left_alone() -> None:
    for name in ("patch_embedding.weight", "blocks.0.unheard_of", "head", "blocks.x.attn1.to_q"):
        assert wan_to_comfy(name) == wan_to_diffusers(name) == name


def test_other_models_are_not_taken_for_wan(manifests: ModuleType) -> None:
    for family in manifests.FAMILIES.values():
        assert not is_wan_of_diffusers(family())
