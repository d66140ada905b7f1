"""Key lists of models: tensor name -> shape.

`GENERATED` names the published models whose lists ``generate_key_lists.py`` made with ComfyUI's
code. `MODELS` holds those that the documentation lists: WAN and Qwen-Image built from their
dimensions, the others from the generated lists.
`FAMILIES` holds made-up models: all the kinds of layers of a family without a list, few blocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nvfp4_foundry.quant.planning.architectures.folding import expand, natural

KEY_LISTS = Path(__file__).with_name("key_lists")

Manifest = dict[str, tuple[int, ...]]


def load_key_list(model: str) -> Manifest:
    """Return the shapes of a generated list."""
    tensors = load_record(model)["tensors"]
    found = {name: tuple(shape) for folded, shape in tensors.items() for name in expand(folded)}
    return {name: found[name] for name in sorted(found, key=natural)}


def load_record(model: str) -> dict[str, Any]:
    """Return all that the generator recorded of a model."""
    record = json.loads((KEY_LISTS / f"{model}.json").read_text(encoding="utf-8"))
    if "like" not in record:
        return record
    other = load_record(record["like"])
    return {**other, **record, "tensors": {**other["tensors"], **record["tensors"]}}


def is_vae(model: str) -> bool:
    """Whether ComfyUI loads a model as a VAE, which has other detection."""
    return load_record(model)["loaded_as"] == "VAE"


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Manifest:
    weight: Manifest = {f"{name}.weight": (outputs, inputs)}
    return {**weight, f"{name}.bias": (outputs,)} if bias else weight


def norm(name: str, width: int, *, bias: bool = False) -> Manifest:
    weight: Manifest = {f"{name}.weight": (width,)}
    return {**weight, f"{name}.bias": (width,)} if bias else weight


def conv(name: str, *shape: int) -> Manifest:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def wan(width: int, ffn: int, blocks: int, inputs: int, outputs: int, text: int = 4096) -> Manifest:
    """WAN text- and image-to-video. Patches are 1x2x2, times have 256 frequencies."""
    found: Manifest = {
        **conv("patch_embedding", width, inputs, 1, 2, 2),
        **linear("text_embedding.0", text, width),
        **linear("text_embedding.2", width, width),
        **linear("time_embedding.0", 256, width),
        **linear("time_embedding.2", width, width),
        **linear("time_projection.1", width, 6 * width),
        "head.modulation": (1, 2, width),
        **linear("head.head", width, 4 * outputs),
    }
    for block in (f"blocks.{i}" for i in range(blocks)):
        found[f"{block}.modulation"] = (1, 6, width)
        found |= norm(f"{block}.norm3", width, bias=True)
        for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
            for projection in "qkvo":
                found |= linear(f"{attention}.{projection}", width, width)
            found |= norm(f"{attention}.norm_q", width) | norm(f"{attention}.norm_k", width)
        found |= linear(f"{block}.ffn.0", width, ffn) | linear(f"{block}.ffn.2", ffn, width)
    return found


def wan_of_diffusers(
    width: int, ffn: int, blocks: int, inputs: int, outputs: int, text: int = 4096
) -> Manifest:
    """The same model as `wan` makes, as the transformer folders of diffusers name it."""
    embedder = "condition_embedder"
    found: Manifest = {
        "scale_shift_table": (1, 2, width),
        **conv("patch_embedding", width, inputs, 1, 2, 2),
        **linear(f"{embedder}.time_embedder.linear_1", 256, width),
        **linear(f"{embedder}.time_embedder.linear_2", width, width),
        **linear(f"{embedder}.time_proj", width, 6 * width),
        **linear(f"{embedder}.text_embedder.linear_1", text, width),
        **linear(f"{embedder}.text_embedder.linear_2", width, width),
        **linear("proj_out", width, 4 * outputs),
    }
    for block in (f"blocks.{i}" for i in range(blocks)):
        found[f"{block}.scale_shift_table"] = (1, 6, width)
        found |= norm(f"{block}.norm2", width, bias=True)
        for attention in (f"{block}.attn1", f"{block}.attn2"):
            for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                found |= linear(f"{attention}.{projection}", width, width)
            found |= norm(f"{attention}.norm_q", width) | norm(f"{attention}.norm_k", width)
        found |= linear(f"{block}.ffn.net.0.proj", width, ffn)
        found |= linear(f"{block}.ffn.net.2", ffn, width)
    return found


def qwen_image(blocks: int = 60, width: int = 3072, *, edit_2511: bool = False) -> Manifest:
    """Qwen-Image; the 2511 edit model is marked by an empty tensor."""
    found: Manifest = {"__index_timestep_zero__": (0,)} if edit_2511 else {}
    found |= linear("time_text_embed.timestep_embedder.linear_1", 256, width)
    found |= linear("time_text_embed.timestep_embedder.linear_2", width, width)
    found |= norm("txt_norm", 3584)
    found |= linear("img_in", 64, width) | linear("txt_in", 3584, width)
    found |= linear("norm_out.linear", width, 2 * width) | linear("proj_out", width, 64)
    projections = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
    for block in (f"transformer_blocks.{i}" for i in range(blocks)):
        for side in ("img", "txt"):
            found |= linear(f"{block}.{side}_mod.1", width, 6 * width)
            found |= linear(f"{block}.{side}_mlp.net.0.proj", width, 4 * width)
            found |= linear(f"{block}.{side}_mlp.net.2", 4 * width, width)
        for projection in (*projections, "to_out.0", "to_add_out"):
            found |= linear(f"{block}.attn.{projection}", width, width)
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            found |= norm(f"{block}.attn.{name}", 128)
    return found


def gated_ltx(width: int = 256) -> Manifest:
    """LTX with gates, as LTX-2.3 has them, and a connector."""
    found = linear("patchify_proj", 128, width) | linear("proj_out", width, 128)
    found |= linear("adaln_single.linear", width, 6 * width)
    embedder = "adaln_single.emb.timestep_embedder"
    found |= linear(f"{embedder}.linear_1", 256, width)
    found |= linear(f"{embedder}.linear_2", width, width)
    found |= linear("caption_projection.linear_1", 512, width)
    found |= linear("caption_projection.linear_2", width, width)
    found |= {"scale_shift_table": (2, width)}
    lists = ("transformer_blocks", "video_embeddings_connector.transformer_1d_blocks")
    for block in (f"{container}.{i}" for container in lists for i in range(4)):
        for attention in (f"{block}.attn1", f"{block}.attn2"):
            for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                found |= linear(f"{attention}.{projection}", width, width)
            found |= linear(f"{attention}.to_gate_logits", width, 32)
            found |= norm(f"{attention}.q_norm", width)
        found |= linear(f"{block}.ff.net.0.proj", width, 4 * width)
        found |= linear(f"{block}.ff.net.2", 4 * width, width)
        found |= {f"{block}.scale_shift_table": (6, width)}
    return found


def diffusers_mmdit(width: int = 256) -> Manifest:
    """Names of diffusers' SD3 and Flux: modulation is the Linear of an adaptive norm."""
    found = linear("context_embedder", 512, width) | linear("proj_out", width, 64)
    found |= linear("norm_out.linear", width, 2 * width)
    found |= linear("time_text_embed.timestep_embedder.linear_1", 256, width)
    for block in (f"transformer_blocks.{i}" for i in range(4)):
        found |= linear(f"{block}.norm1.linear", width, 6 * width)
        found |= linear(f"{block}.norm1_context.linear", width, 6 * width)
        for projection in ("to_q", "to_k", "to_v", "to_out.0"):
            found |= linear(f"{block}.attn.{projection}", width, width)
        found |= linear(f"{block}.ff.net.0.proj", width, 4 * width)
        found |= linear(f"{block}.ff.net.2", 4 * width, width)
    return found


def unknown_dit(width: int = 256) -> Manifest:
    """A model nobody has written a preset for, with names of its own."""
    found = linear("patch_in", 64, width) | linear("to_pixels", width, 64)
    for block in (f"stages.{i}" for i in range(5)):
        for projection in ("query", "key", "value", "merge"):
            found |= linear(f"{block}.mixer.{projection}", width, width)
        found |= linear(f"{block}.mlp.up", width, 4 * width)
        found |= linear(f"{block}.mlp.down", 4 * width, width)
        found |= linear(f"{block}.adaLN_modulation.1", width, 6 * width)
        found |= linear(f"{block}.mixer.head_gate_logits", width, 8)
        found |= norm(f"{block}.norm", width)
    return found


GENERATED = sorted(path.stem for path in KEY_LISTS.glob("*.json"))
BY_DIMENSIONS: dict[str, Callable[[], Manifest]] = {
    "wan2.2-ti2v-5b": lambda: wan(3072, 14336, 30, 48, 48),
    "wan2.2-t2v-14b": lambda: wan(5120, 13824, 40, 16, 16),
    "wan2.2-i2v-14b": lambda: wan(5120, 13824, 40, 36, 16),
    "qwen-image-2512": qwen_image,
    "qwen-image-edit-2511": lambda: qwen_image(edit_2511=True),
}
#: Models whose sizes and presets the documentation gives.
DOCUMENTED = (
    "anima", "auraflow", "boogu", "chroma", "chroma-radiance", "cosmos-predict2-t2i-14b",
    "cosmos-predict2-t2i-2b", "ernie-image", "flux1-dev", "flux1-schnell", "flux2-dev",
    "flux2-klein-4b", "flux2-klein-9b", "gemma3-12b", "hidream-i1", "hidream-o1",
    "hunyuan-image-2.1", "hunyuan-video", "hunyuan-video-1.5", "ideogram4", "kandinsky5-image",
    "kandinsky5-lite", "kandinsky5-pro", "krea2", "lens", "llama3-8b", "longcat-image", "ltx-2",
    "ltx-2.3", "ltxv-13b", "ltxv-2b", "mage-flow", "minimax-h3", "minimax-h3-curve",
    "minimax-h3-vae",
    "mistral3-24b", "mochi", "omnigen2", "qwen-image-2512", "qwen-image-edit-2511",
    "qwen2.5-vl-7b", "qwen3-4b", "qwen3-8b", "qwen3-vl-8b", "sd1.5", "sd3.5-large",
    "sd3.5-medium", "sdxl", "seedvr2-3b", "seedvr2-7b", "t5-xxl", "umt5-xxl", "wan-humo",
    "wan-scail", "wan2.1-camera", "wan2.1-vace-14b", "wan2.2-animate", "wan2.2-i2v-14b",
    "wan2.2-s2v", "wan2.2-t2v-14b", "wan2.2-ti2v-5b", "z-image",
)  # fmt: skip
MODELS: dict[str, Callable[[], Manifest]] = {
    **{model: partial(load_key_list, model) for model in DOCUMENTED},
    **BY_DIMENSIONS,
}

FAMILIES: dict[str, Callable[[], Manifest]] = {
    "gated-ltx": gated_ltx,
    "diffusers-mmdit": diffusers_mmdit,
    "unknown-dit": unknown_dit,
}


def shapes_of(model: str) -> Manifest:
    """Return the tensors of a real or made-up model, by the name of its list."""
    known = {**MODELS, **FAMILIES}
    return known[model]() if model in known else load_key_list(model)
