"""Recognising models by their keys."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from nvfp4_foundry.quant.errors import PlanError
from nvfp4_foundry.quant.planning import (
    Inventory,
    Recipe,
    detect_architecture,
    get_preset,
    inventory_of,
    make_plan,
)
from nvfp4_foundry.quant.planning.presets import preset_for
from nvfp4_foundry.quant.sources import TensorInfo

InventoryNamed = Callable[[str], Inventory]

#: Model, what it is recognised as, what is said of it, the preset for it.
KNOWN = [
    ("wan2.2-ti2v-5b", "wan-ti2v", "48 input channels, width 3072, 30 blocks", "wan2.2-ti2v-5b"),
    ("wan2.2-t2v-14b", "wan-t2v", "16 input channels, width 5120, 40 blocks", "wan2.2-14b"),
    ("wan2.2-i2v-14b", "wan-i2v", "36 input channels, width 5120, 40 blocks", "wan2.2-14b"),
    ("qwen-image-2512", "qwen-image", "60 blocks", "qwen-image-2512"),
    ("qwen-image-edit-2511", "qwen-image-edit-2511", "60 blocks", "qwen-image-edit-2511"),
    ("flux1-dev", "flux1", "width 3072, 19 double_blocks, 38 single_blocks", "flux1"),
    ("flux1-schnell", "flux1", "width 3072, 19 double_blocks, 38 single_blocks, no guidance",
     "flux1"),
    ("flux2-dev", "flux2", "width 6144, 8 double_blocks, 48 single_blocks", "flux2"),
    ("flux2-klein-4b", "flux2", "width 3072, 5 double_blocks, 20 single_blocks", "flux2"),
    ("flux2-klein-9b", "flux2", "width 4096, 8 double_blocks, 24 single_blocks", "flux2"),
    ("chroma", "chroma", "width 3072, 19 double_blocks, 38 single_blocks", "chroma"),
    ("chroma-radiance", "chroma-radiance", "width 3072, 19 double_blocks, 38 single_blocks",
     "chroma"),
    ("z-image", "z-image", "width 3840, 30 layers", "z-image"),
    ("ltx-2", "ltx-2", "width 4096, 48 transformer_blocks", "ltx-2"),
    ("ltxv-13b", "ltxv", "width 4096, 48 transformer_blocks", "ltx-2"),
    ("ltxv-2b", "ltxv", "width 2048, 28 transformer_blocks", "ltx-2"),
    ("hunyuan-video", "hunyuan-video",
     "16 input channels, width 3072, 20 double_blocks, 40 single_blocks", "hunyuan-video"),
    ("hunyuan-video-1.5", "hunyuan-video-1.5",
     "65 input channels, width 2048, 54 double_blocks", "hunyuan-video-1.5"),
    ("sdxl", "sdxl", "4 input channels, text width 2048, 70 transformer blocks", "sdxl"),
    ("sd1.5", "sd1.5", "4 input channels, text width 768, 16 transformer blocks", "sd1.5"),
    ("seedvr2-3b", "seedvr2", "width 2560, 32 blocks", "smart"),
    ("seedvr2-7b", "seedvr2", "width 3072, 36 blocks", "smart"),
    ("t5-xxl", "t5-xxl", "24 encoder.block", "t5-xxl"),
    ("umt5-xxl", "umt5-xxl", "24 encoder.block", "t5-xxl"),
    ("qwen2.5-vl-7b", "qwen2.5-vl", "width 3584, 28 model.layers", "qwen2.5-vl"),
    ("qwen3-4b", "qwen3", "width 2560, 36 model.layers", "language-models"),
    ("anima", "anima", "width 2048, 28 blocks, 6 llm_adapter.blocks", "cosmos-predict2"),
    ("auraflow", "auraflow", "width 3072, 4 double_layers, 32 single_layers", "smart"),
    ("boogu", "boogu",
     "width 3360, 2 context_refiner, 8 double_stream_layers, 2 noise_refiner",
     "omnigen2"),
    ("cosmos-predict2-t2i-14b", "cosmos-predict2", "width 5120, 36 blocks", "cosmos-predict2"),
    ("cosmos-predict2-t2i-2b", "cosmos-predict2", "width 2048, 28 blocks", "cosmos-predict2"),
    ("ernie-image", "ernie-image", "width 4096, 36 layers", "ernie-image"),
    ("gemma3-12b", "gemma3", "width 3840, 48 model.layers", "language-models"),
    ("hidream-i1", "hidream-i1",
     "width 2560, 16 double_stream_blocks, 32 single_stream_blocks",
     "hidream-i1"),
    ("hidream-o1", "hidream-o1", "36 language_model.layers, 27 visual.blocks", "hidream-o1"),
    ("hunyuan-image-2.1", "hunyuan-image-2.1",
     "64 input channels, width 3584, 20 double_blocks, 40 single_blocks",
     "hunyuan-video"),
    ("ideogram4", "ideogram4", "width 4608, 34 layers", "ideogram4"),
    ("kandinsky5-image", "kandinsky5",
     "width 2560, 2 text_transformer_blocks, 50 visual_transformer_blocks",
     "kandinsky5"),
    ("kandinsky5-lite", "kandinsky5",
     "width 1792, 2 text_transformer_blocks, 32 visual_transformer_blocks",
     "kandinsky5"),
    ("kandinsky5-pro", "kandinsky5",
     "width 4096, 4 text_transformer_blocks, 60 visual_transformer_blocks",
     "kandinsky5"),
    ("krea2", "krea2",
     "width 6144, 28 blocks, 2 txtfusion.layerwise_blocks, 2 txtfusion.refiner_blocks",
     "krea2"),
    ("lens", "lens", "width 1536, 48 transformer_blocks", "smart"),
    ("llama3-8b", "llama3", "width 4096, 32 model.layers", "language-models"),
    ("longcat-image", "longcat-image",
     "width 3072, 10 double_blocks, 20 single_blocks, no guidance",
     "flux1"),
    ("ltx-2.3", "ltx-2", "width 4096, 48 transformer_blocks", "ltx-2"),
    ("mage-flow", "mage-flow", "12 blocks", "smart"),
    ("minimax-h3", "minimax-h3", "width 5376, 50 blocks, 2 token_refiner.blocks", "minimax-h3"),
    ("minimax-h3-curve", "minimax-h3",
     "width 5376, 50 blocks, 2 token_refiner.blocks",
     "minimax-h3"),
    ("minimax-h3-vae", "minimax-h3-vae", "36 decoder.transformer_blocks", "minimax-h3-vae"),
    ("mistral3-24b", "mistral3", "width 5120, 40 model.layers", "language-models"),
    ("mochi", "mochi", "width 3072, 48 blocks", "smart"),
    ("omnigen2", "omnigen2",
     "width 2520, 2 context_refiner, 32 layers, 2 noise_refiner",
     "omnigen2"),
    ("qwen3-8b", "qwen3", "width 4096, 36 model.layers", "language-models"),
    ("qwen3-vl-8b", "qwen3-vl", "width 4096, 36 model.language_model.layers", "language-models"),
    ("sd3.5-large", "sd3", "width 2432, 38 joint_blocks", "sd3.5"),
    ("sd3.5-medium", "sd3", "width 1536, 24 joint_blocks", "sd3.5"),
    ("wan-humo", "wan-humo", "36 input channels, width 5120, 40 blocks", "wan-conditioned"),
    ("wan-scail", "wan-scail", "20 input channels, width 5120, 40 blocks", "wan-conditioned"),
    ("wan2.1-camera", "wan-camera", "32 input channels, width 5120, 40 blocks", "wan-conditioned"),
    ("wan2.1-vace-14b", "wan-vace", "16 input channels, width 5120, 40 blocks", "wan-conditioned"),
    ("wan2.2-animate", "wan-animate",
     "36 input channels, width 5120, 40 blocks",
     "wan-conditioned"),
    ("wan2.2-s2v", "wan-s2v", "16 input channels, width 5120, 40 blocks", "wan-conditioned"),
    ("minimax-h3-vae", "minimax-h3-vae", "36 decoder.transformer_blocks", "minimax-h3-vae"),
    ("unknown-dit", "transformer", "5 stages", "smart"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "identity", "facts", "preset"), KNOWN)
def test_models(
    inventory_named: InventoryNamed, model: str, identity: str, facts: str, preset: str
) -> None:
    found = detect_architecture(inventory_named(model))
    assert (found.id, found.facts, found.problem) == (identity, facts, None)
    assert preset_for(found).name == preset


def test_every_list_is_of_a_known_model(manifests: ModuleType) -> None:
    assert set(manifests.MODELS) <= {model for model, *_ in KNOWN}


def test_nothing_known() -> None:
    assert detect_architecture(Inventory({})).id == "unknown"


def renamed(inventory: Inventory, *changes: tuple[str, str]) -> Inventory:
    """Return the same model under other names."""
    infos = []
    for layer in inventory.layers.values():
        for info in (layer.tensor, *layer.companions):
            name = info.name
            for old, new in changes:
                name = name.replace(old, new)
            infos.append(TensorInfo(name, info.shape, info.dtype))
    return inventory_of(infos)


@pytest.mark.parametrize(("model", "identity"), [("flux1-dev", "flux1"), ("chroma", "chroma")])
def test_norms_may_hold_scales(inventory_named: InventoryNamed, model: str, identity: str) -> None:
    """The original files have such names too. ComfyUI renames them when it loads them."""
    published = renamed(
        inventory_named(model), ("_norm.weight", "_norm.scale"), ("norms.0.weight", "norms.0.scale")
    )
    assert detect_architecture(published).id == identity


def test_hunyuan_video_with_the_original_names(inventory_named: InventoryNamed) -> None:
    original = renamed(
        inventory_named("hunyuan-video"),
        ("_attn.qkv", "_attn_qkv"), ("_attn.proj", "_attn_proj"), ("_mod.lin.", "_mod.linear."),
        ("modulation.lin.", "modulation.linear."), ("_mlp.0.", "_mlp.fc1."),
        ("_mlp.2.", "_mlp.fc2."),
    )  # fmt: skip
    plan = make_plan(get_preset("hunyuan-video").build(), original)
    ours = make_plan(get_preset("hunyuan-video").build(), inventory_named("hunyuan-video"))
    assert plan.architecture == ours.architecture and plan.warnings == ()
    assert (plan.counts(), plan.bytes_after) == (ours.counts(), ours.bytes_after)


def infos_of(*names: str, shape: tuple[int, ...] = (64, 64)) -> Inventory:
    return inventory_of(TensorInfo(f"{name}.weight", shape, torch.bfloat16) for name in names)


BLOCK = [f"blocks.{i}.attn1.to_{p}" for i in range(2) for p in "qkv"]
REFUSED = [
    (["condition_embedder.time_proj", *BLOCK], "wan-diffusers", "WAN with diffusers names"),
    (["single_transformer_blocks.0.attn.to_q"], "diffusers", "Flux with diffusers names: .*joins"),
    (["down_blocks.0.resnets.0.conv1"], "diffusers", "U-Net with diffusers names"),
    (["adaln_single.emb.timestep_embedder.linear_1", "pos_embed.proj"], "diffusers",
     "PixArt with diffusers names"),
    (["text_model.encoder.layers.0.mlp.fc1"], "clip", "does not load quantized CLIP"),
    (["encoder.block.0.layer.0.SelfAttention.k"], "t5", "quantized T5 only as T5-XXL"),
    (["blocks.0.attn.proj_qkv.vid", "vid_in.proj"], "seedvr2",
     "SeedVR2: the file lacks positive_conditioning and negative_conditioning"),
    (["cap_embedder.1", "noise_refiner.0.attention.k_norm"], "lumina",
     r"only these widths: Z-Image \(3840\) and Lumina 2 \(2304\)"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "identity", "message"), REFUSED)
def test_what_comfyui_cannot_load_is_refused(names: list[str], identity: str, message: str) -> None:
    inventory = infos_of(*names)
    assert detect_architecture(inventory).id == identity
    with pytest.raises(PlanError, match=message):
        make_plan(get_preset("smart").build(), inventory)


def test_diffusers_mmdit_is_refused(inventory_named: InventoryNamed) -> None:
    with pytest.raises(PlanError, match="start from a file with ComfyUI's names"):
        make_plan(get_preset("smart").build(), inventory_named("diffusers-mmdit"))


READ = [
    ("ltx-2", "transformer_blocks.0.attn2.to_k"),
    ("sdxl", "input_blocks.4.1.transformer_blocks.0.attn2.to_k"),
    ("sd1.5", "input_blocks.1.1.transformer_blocks.0.attn2.to_k"),
    ("flux1-dev", "txt_in"),
    ("z-image", "cap_embedder.1"),
]


@pytest.mark.parametrize(("model", "layer"), READ)
def test_shapes_that_comfyui_reads_stay_readable(
    inventory_named: InventoryNamed, model: str, layer: str
) -> None:
    """A format that packs the shape gives way to one that keeps it, and the reason says so."""
    recipe = Recipe.model_validate({"rules": [{"pattern": layer, "format": "nvfp4"}]})
    plan = make_plan(recipe, inventory_named(model))
    planned = next(la for la in plan.layers if la.name == layer)
    assert planned.format == "float8_e4m3fn"
    why = "ComfyUI recognises the model by its shape, which this format packs"
    assert planned.reason.endswith(f"float8_e4m3fn, because nvfp4 is not possible: {why}")
    assert plan.warnings == ()


@pytest.mark.parametrize("model", ["wan2.2-ti2v-5b", "wan2.2-i2v-14b", "qwen-image-edit-2511"])
def test_lists_by_dimensions_agree_with_comfyui(manifests: ModuleType, model: str) -> None:
    assert manifests.BY_DIMENSIONS[model]() == manifests.load_key_list(model)
