"""What the Linear layers in blocks are taken for, on the key lists of real models.

`ROLES` is checked by hand against ComfyUI's classes: each pattern names layers that the classes use
for nothing else. Every layer that no pattern names must have no role, so attention and feed-forward
of these models can never be taken for modulation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import prod
from types import ModuleType

import pytest
from nvfp4_foundry.quant.planning import Inventory, get_preset, make_plan
from nvfp4_foundry.quant.planning.roles import find_roles

InventoryNamed = Callable[[str], Inventory]
Roles = Mapping[str, str]

FLUX: Roles = {"modulation": r"double_blocks\.\d+\.(img|txt)_mod\.lin|single_.*\.modulation\.lin"}
QWEN: Roles = {"modulation": r"transformer_blocks\.\d+\.(img|txt)_mod\.1"}
HUNYUAN: Roles = {**FLUX, "adapter": r"txt_in\.individual_token_refiner\..*"}
CHROMA: Roles = {"adapter": r"distilled_guidance_layer\..*"}
PREDICT2: Roles = {"modulation": r"blocks\.\d+\.adaln_modulation_(self_attn|cross_attn|mlp)\.[12]"}
COSMOS: Roles = {"modulation": r"blocks\.block\d+\.blocks\.\d\.adaLN_modulation\.[12]"}
REFINERS = r"(context|noise|ref_image|siglip)_refiner\..*"
LUMINA: Roles = {
    "modulation": r"layers\.\d+\.adaLN_modulation\.[01]", "adapter": rf"{REFINERS}|dec_net\..*",
}  # fmt: skip
SAM: Roles = {
    "adapter": r".*\.\w+_encoder\..*",
    "gate": r"tracker\..*mask_decoder\.(output_hyper.*\.2|.*\.cross_attn_.*\.(q|out)_proj)",
}  # fmt: skip
VIDEO: Roles = {"modulation": r".*\.emb_layers\.1", "embedder": r".*\.time_pos_embed\.[02]"}
KANDINSKY: Roles = {
    "modulation": r"(text|visual)_transformer_blocks\.\d+\.(text|visual)_modulation\.out_layer"
}
SD3: Roles = {"modulation": r"joint_blocks\.\d+\.(x|context)_block\.adaLN_modulation\.1"}
MINIMAX: Roles = {
    "modulation": r"blocks\.\d+\.adaln_proj\.linear", "adapter": r"token_refiner\..*",
}  # fmt: skip
CONNECTORS: Roles = {"adapter": r"(audio|video)_embeddings_connector\..*"}
COGVIDEO: Roles = {"modulation": r"blocks\.\d+\.norm[12]\.linear"}
VACE: Roles = {"adapter": r"vace_blocks\.\d+\.(before|after)_proj"}
PIXEL: Roles = {
    "modulation": r"(core\.)?(patch|pixel)_blocks\.\d+\.adaLN_modulation.*",
    "gate": r"(core\.)?pixel_blocks\.\d+\.mlp\.fc[12]",
}
VISUAL: Roles = {"adapter": r"(model\.)?visual\..*"}
VISION: Roles = {"adapter": r"vision_model\..*"}
GEMMA_4: Roles = {
    "adapter": r"(vision|audio)_model\..*", "gate": r"model\.layers\.\d+\.per_layer_.*",
}  # fmt: skip
CASCADE: Roles = {"modulation": r"(down|up)_blocks\.\d\.\d+\.mapper(_\w+)?"}
#: By key list: the roles of Linear layers in blocks. Lists that are not named have none.
ROLES: dict[str, Roles] = {
    "flux1-dev": FLUX, "flux1-schnell": FLUX, "flux1-fill": FLUX, "longcat-image": FLUX,
    "ovis-image": FLUX,
    "chroma": CHROMA, "chroma-radiance": CHROMA,
    "z-image": LUMINA, "z-image-omni": LUMINA, "z-image-pixel": LUMINA, "lumina2": LUMINA,
    "newbie": LUMINA,
    "qwen-image-2512": QWEN, "qwen-image-edit-2511": QWEN, "qwen-image-layered": QWEN,
    "mage-flow": QWEN, "lens": QWEN,
    "hunyuan-video": HUNYUAN, "hunyuan-video-i2v": HUNYUAN, "hunyuan-video-skyreels": HUNYUAN,
    "hunyuan-video-1.5": HUNYUAN, "hunyuan-video-1.5-sr": HUNYUAN, "hunyuan-image-2.1": HUNYUAN,
    "hunyuan-image-2.1-distilled": HUNYUAN, "hunyuan-image-2.1-refiner": HUNYUAN,
    "hunyuan-dit": {"modulation": r"blocks\.\d+\.default_modulation\.1"},
    "hunyuan-dit-1.0": {"modulation": r"blocks\.\d+\.default_modulation\.1"},
    "ltx-2": CONNECTORS,
    "ltx-2.3": {**CONNECTORS, "gate": r"transformer_blocks\..*\.to_gate_logits"},
    "sd3-medium": SD3, "sd3.5-medium": SD3, "sd3.5-large": SD3,
    "auraflow": {"modulation": r"(double|single)_layers\.\d+\.mod(C|X|CX)\.1"},
    "mochi": {"modulation": r"blocks\.\d+\.mod_[xy]"},
    "hidream-i1": {
        "modulation": r"(double|single)_stream_blocks\.\d+\.block\.adaLN_modulation\.1",
        "expert": r"(double|single)_stream_blocks\.\d+\.block\.ff_i\.experts\.\d\.w[123]",
    },
    "hidream-o1": VISUAL,
    "omnigen2": {"modulation": r"layers\.\d+\.norm1\.linear", "adapter": REFINERS},
    "boogu": {
        "modulation": r"(double|single)_stream_layers\.\d+\.(img_|instruct_)?norm\d\.linear",
        "adapter": REFINERS,
    },
    "krea2": {"adapter": r"txtfusion\..*"},
    "ideogram4": {"modulation": r"layers\.\d+\.adaln_modulation"},
    "kandinsky5-lite": KANDINSKY, "kandinsky5-pro": KANDINSKY, "kandinsky5-image": KANDINSKY,
    "minimax-h3": MINIMAX, "minimax-h3-curve": MINIMAX,
    "anima": {**PREDICT2, "adapter": r"llm_adapter\..*"},
    "cosmos-predict2-t2i-2b": PREDICT2, "cosmos-predict2-t2i-14b": PREDICT2,
    "cosmos-predict2-v2w-2b": PREDICT2,
    "cosmos-t2v-7b": COSMOS, "cosmos-t2v-14b": COSMOS, "cosmos-i2v-7b": COSMOS,
    "cogvideox-2b": COGVIDEO, "cogvideox-5b": COGVIDEO, "cogvideox-1.5-5b": COGVIDEO,
    "cogvideox-1.5-5b-i2v": COGVIDEO, "cogvideox-1.5-5b-inpaint": COGVIDEO,
    "wan2.1-vace-14b": VACE, "wan2.1-vace-1.3b": VACE,
    "wan2.2-animate": {"adapter": r"face_adapter\..*"},
    "wan2.2-s2v": {"adapter": r"audio_injector\..*"},
    "wan-dancer": {"adapter": r"music_(injector|encoder)\..*"},
    "pixeldit": PIXEL, "pid": PIXEL,
    "stable-cascade-c": CASCADE, "stable-cascade-b": CASCADE,
    "ace-step-1.5": {
        "adapter": r"encoder\.(lyric|timbre)_encoder\..*|(de)?tokenizer\..*",
    },
    "hunyuan3d-2": FLUX, "hunyuan3d-2-mini": FLUX,
    "hunyuan3d-2.1": {"expert": r"blocks\.\d+\.moe\.experts\.\d\..*"},
    "svd": VIDEO, "sv3d-u": VIDEO, "sv3d-p": VIDEO,
    "sam3": SAM, "sam3.1": SAM,
    "rt-detr": {"gate": r"decoder\.decoder\.lqe_layers\.\d\.reg_conf\.layers\.\d"},
    "stable-audio-3": {"embedder": r"transformer\.layers\.\d+\.to_local_embed\.\d"},
    "cogvideox-5b-i2v": COGVIDEO,
    "ace-step": {"adapter": r"lyric_encoder\..*"},
    "triposplat": {
        "adapter": REFINERS, "gate": r"((noise|context)_)?repo_layers\.\d+\.\w+_map",
    },
    "qwen2.5-vl-7b": VISUAL, "qwen3-vl-8b": VISUAL,
    "qwen3-vl-4b": VISUAL, "qwen3-vl-32b": VISUAL,
    "qwen3.5-9b": {**VISUAL, "gate": r".*\.linear_attn\.in_proj_[ab]"},
    "gemma3-12b": VISION, "gemma3-4b-vision": VISION, "gemma4-31b": VISION,
    "gemma4-e2b": GEMMA_4, "gemma4-e4b": GEMMA_4,
    "qwen3.5-2b": {**VISUAL, "gate": r".*\.linear_attn\.in_proj_[ab]"},
    "gated-ltx": {"adapter": r"video_embeddings_connector\..*", "gate": r"transformer_.*_logits"},
    "unknown-dit": {
        "modulation": r"stages\.\d+\.adaLN_modulation\.1", "gate": r".*head_gate_logits",
    },
}  # fmt: skip


def in_blocks(inventory: Inventory) -> dict[str, str | None]:
    """Return the roles of the Linear layers that are in a list of blocks."""
    return {la.name: la.role for la in inventory.of_kind("linear") if la.block}


def expected_role(name: str, roles: Roles) -> str | None:
    return next((role for role, names in roles.items() if re.fullmatch(names, name)), None)


def test_roles_of_every_key_list(inventory_named: InventoryNamed, manifests: ModuleType) -> None:
    for model in (*manifests.GENERATED, "gated-ltx", "unknown-dit"):
        found = in_blocks(inventory_named(model))
        roles = ROLES.get(model, {})
        assert found == {name: expected_role(name, roles) for name in found}, model
        assert set(roles) == {role for role in found.values() if role}, model


def test_nothing_with_a_role_gets_4_bits_activations(
    inventory_named: InventoryNamed, manifests: ModuleType
) -> None:
    for model in (*manifests.GENERATED, "gated-ltx", "unknown-dit"):
        inventory = inventory_named(model)
        plan = make_plan(get_preset("smart").build(), inventory, any_architecture=True)
        for planned in plan.quantized():
            role = inventory.layers[planned.name].role
            assert role is None or (role == "expert" and planned.format != "nvfp4"), planned.name


#: Names that say nothing, for layers that are known by their shape alone.
NEUTRAL = [
    ("flux1-dev", r"(img_mod|txt_mod)\.lin", "cond.a"),
    ("qwen-image-2512", r"(img|txt)_mod\.1", r"cond_\1.1"),
    ("z-image", r"layers\.(\d+)\.adaLN_modulation\.0", r"layers.\1.cond"),
    ("hidream-i1", r"block\.adaLN_modulation\.1", "block.cond.1"),
    ("auraflow", r"mod(C|X|CX)\.1", r"cond\1.1"),
    ("ideogram4", r"layers\.(\d+)\.adaln_modulation", r"layers.\1.cond"),
    ("omnigen2", r"norm1\.linear", "cond.make"),
    ("kandinsky5-pro", r"_modulation\.out_layer", "_cond.make"),
    ("cogvideox-2b", r"norm([12])\.linear", r"cond\1.make"),
    ("minimax-h3", r"adaln_proj\.linear", "cond.make"),
    ("sd3.5-large", r"adaLN_modulation\.1", "cond.1"),
]


@pytest.mark.parametrize(("model", "pattern", "neutral"), NEUTRAL)
def test_modulation_is_known_by_its_shape_too(
    inventory_named: InventoryNamed, model: str, pattern: str, neutral: str
) -> None:
    inventory = inventory_named(model)
    names = {name: re.sub(pattern, neutral, name) for name in inventory.layers}
    linears = [names[la.name] for la in inventory.of_kind("linear")]
    found = find_roles(
        {names[la.name]: la.shape for la in inventory.layers.values()},
        linears,
        {names[la.name]: la.block.container for la in inventory.layers.values() if la.block},
    )
    assert any(name != new for name, new in names.items())
    for name, role in in_blocks(inventory).items():
        assert found.get(names[name]) == role, (name, names[name])


def test_a_bottleneck_is_a_gate_and_grouped_keys_are_not() -> None:
    """The in-projections of linear attention are narrow; keys of grouped attention may be so."""
    shapes = {
        "self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (256, 4096),
        "self_attn.o_proj": (4096, 4096), "linear_attn.in_proj_a": (32, 4096),
        "down": (128, 4096), "up": (4096, 128),
    }  # fmt: skip
    names = {f"layers.{i}.{name}": shape for i in range(2) for name, shape in shapes.items()}
    roles = find_roles(names, list(names), dict.fromkeys(names, "layers"))
    assert {name[9:] for name, role in roles.items() if role == "gate"} == {
        "linear_attn.in_proj_a", "down", "up",
    }  # fmt: skip
    assert set(roles.values()) == {"gate"}


def test_modulation_is_a_part_of_the_size(inventory_named: InventoryNamed) -> None:
    """A third of Qwen-Image: a mistake here would cost gigabytes or the quality."""
    inventory = inventory_named("qwen-image-2512")
    linears = [la for la in inventory.of_kind("linear") if la.block]
    share = sum(prod(la.shape) for la in linears if la.role) / sum(prod(la.shape) for la in linears)
    assert share == pytest.approx(1 / 3, abs=0.001)
