"""Writes the key lists of real models: ``python generate_key_lists.py FOLDER [MODEL...]``.

Every model is built by ComfyUI's own code, on the meta device, with the configuration of its
published weights, and recognised again by ComfyUI's own detection. Names are those of ComfyUI's
modules: a published file may say ``.scale`` for the ``.weight`` of a norm.

Run with ComfyUI's Python and ComfyUI's folder as ``PYTHONPATH``, FOLDER being ``key_lists``
beside this file. `manifests.load_key_list` reads what this writes.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

folder, models = Path(sys.argv[1]), sys.argv[2:]
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ldm.chroma.model  # noqa: E402
import comfy.ldm.chroma_radiance.model  # noqa: E402
import comfy.ldm.flux.model  # noqa: E402
import comfy.ldm.hunyuan_video.model  # noqa: E402
import comfy.ldm.lightricks.av_model  # noqa: E402
import comfy.ldm.lightricks.model  # noqa: E402
import comfy.ldm.lumina.model  # noqa: E402
import comfy.ldm.modules.diffusionmodules.openaimodel as unet  # noqa: E402
import comfy.ldm.qwen_image.model  # noqa: E402
import comfy.ldm.seedvr.model  # noqa: E402
import comfy.ldm.wan.model  # noqa: E402
import comfy.model_detection  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.text_encoders.llama  # noqa: E402
import comfy.text_encoders.t5  # noqa: E402
import torch  # noqa: E402

Shapes = dict[str, tuple[int, ...]]

FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 768,
    "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0, "num_heads": 24, "depth": 19,
    "depth_single_blocks": 38, "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
FLUX2 = FLUX | {
    "image_model": "flux2", "in_channels": 128, "out_channels": 128, "vec_in_dim": None,
    "context_in_dim": 15360, "hidden_size": 6144, "mlp_ratio": 3.0, "num_heads": 48, "depth": 8,
    "depth_single_blocks": 48, "axes_dim": [32, 32, 32, 32], "theta": 2000, "patch_size": 1,
    "qkv_bias": False, "ops_bias": False, "global_modulation": True, "mlp_silu_act": True,
}  # fmt: skip
KLEIN = FLUX2 | {"guidance_embed": False}
CHROMA = {key: value for key, value in FLUX.items() if key != "guidance_embed"} | {
    "image_model": "chroma", "in_channels": 64, "out_channels": 64, "vec_in_dim": None,
    "in_dim": 64, "out_dim": 3072, "hidden_dim": 5120, "n_layers": 5,
}  # fmt: skip
RADIANCE = CHROMA | {
    "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 16,
    "nerf_hidden_size": 64, "nerf_mlp_ratio": 4, "nerf_depth": 4, "nerf_max_freqs": 8,
    "nerf_tile_size": 512, "nerf_final_head_type": "conv", "nerf_embedder_dtype": torch.float32,
    "use_x0": False, "use_sequential_txt_ids": False,
}  # fmt: skip
Z_IMAGE = {
    "patch_size": 2, "in_channels": 16, "dim": 3840, "cap_feat_dim": 2560, "n_layers": 30,
    "qk_norm": True, "n_heads": 30, "n_kv_heads": 30, "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512], "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True,
    "pad_tokens_multiple": 32,
}  # fmt: skip
HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 16, "patch_size": [1, 2, 2], "out_channels": 16,
    "vec_in_dim": 768, "axes_dim": [16, 56, 56], "context_in_dim": 4096, "hidden_size": 3072,
    "mlp_ratio": 4.0, "num_heads": 24, "depth": 20, "depth_single_blocks": 40, "theta": 256,
    "qkv_bias": True, "guidance_embed": True, "byt5": False, "meanflow": False,
    "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
HUNYUAN_15 = HUNYUAN | {
    "in_channels": 65, "patch_size": [1, 1, 1], "out_channels": 32, "vec_in_dim": None,
    "context_in_dim": 3584, "hidden_size": 2048, "num_heads": 16, "depth": 54,
    "depth_single_blocks": 0, "guidance_embed": False, "byt5": True,
    "use_cond_type_embedding": True, "vision_in_dim": 1152, "meanflow_sum": True,
}  # fmt: skip
LTXV_13B = {"num_layers": 48, "attention_head_dim": 128, "cross_attention_dim": 4096}
LTXV_2B = {"num_layers": 28, "attention_head_dim": 64, "cross_attention_dim": 2048}
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "use_spatial_transformer": True, "legacy": False,
}  # fmt: skip
SDXL = UNET | {
    "num_classes": "sequential", "adm_in_channels": 2816, "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10, "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "use_linear_in_transformer": True, "context_dim": 2048, "num_head_channels": 64,
}  # fmt: skip
SD15 = UNET | {
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "use_linear_in_transformer": False, "context_dim": 768, "num_heads": 8,
}  # fmt: skip
WAN_5B = {
    "model_type": "t2v", "patch_size": (1, 2, 2), "dim": 3072, "ffn_dim": 14336, "num_heads": 24,
    "num_layers": 30, "in_dim": 48, "out_dim": 48,
}  # fmt: skip
WAN_14B = WAN_5B | {
    "dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "in_dim": 16, "out_dim": 16,
}  # fmt: skip
QWEN = {"image_model": "qwen_image", "num_layers": 60}
SEEDVR2_3B = {
    "vid_dim": 2560, "heads": 20, "num_layers": 32, "norm_eps": 1e-5, "mlp_type": "swiglu",
    "vid_out_norm": True,
}  # fmt: skip
SEEDVR2_7B = {
    "vid_dim": 3072, "heads": 24, "num_layers": 36, "mm_layers": 36, "norm_eps": 1e-5,
    "rope_type": "rope3d", "rope_dim": 64, "mlp_type": "normal",
}  # fmt: skip


def t5_config(name: str) -> dict[str, Any]:
    """Return the configuration ComfyUI keeps beside the encoder."""
    path = Path(comfy.text_encoders.t5.__file__).with_name(f"{name}_config_xxl.json")
    return json.loads(path.read_text())


Flux = comfy.ldm.flux.model.Flux
Hunyuan = comfy.ldm.hunyuan_video.model.HunyuanVideo
Llama = comfy.text_encoders.llama
Ltx, Ltx2 = comfy.ldm.lightricks.model.LTXVModel, comfy.ldm.lightricks.av_model.LTXAVModel
Qwen = comfy.ldm.qwen_image.model.QwenImageTransformer2DModel
SeedVR2 = comfy.ldm.seedvr.model.NaDiT
T5 = comfy.text_encoders.t5.T5
Wan = comfy.ldm.wan.model.WanModel

# Class, configuration, and what ComfyUI's detection calls it.
DIFFUSION: dict[str, tuple[Callable[..., torch.nn.Module], Mapping[str, Any], str]] = {
    "flux1-dev": (Flux, FLUX, "Flux"),
    "flux1-schnell": (Flux, FLUX | {"guidance_embed": False}, "FluxSchnell"),
    "flux2-dev": (Flux, FLUX2, "Flux2"),
    "flux2-klein-4b": (
        Flux,
        KLEIN | {"context_in_dim": 7680, "hidden_size": 3072, "num_heads": 24, "depth": 5,
                 "depth_single_blocks": 20},
        "Flux2",
    ),
    "flux2-klein-9b": (
        Flux,
        KLEIN | {"context_in_dim": 12288, "hidden_size": 4096, "num_heads": 32,
                 "depth_single_blocks": 24},
        "Flux2",
    ),
    "chroma": (comfy.ldm.chroma.model.Chroma, CHROMA, "Chroma"),
    "chroma-radiance": (
        comfy.ldm.chroma_radiance.model.ChromaRadiance, RADIANCE, "ChromaRadiance",
    ),
    "z-image": (comfy.ldm.lumina.model.NextDiT, Z_IMAGE, "ZImage"),
    "ltxv-2b": (Ltx, LTXV_2B, "LTXV"),
    "ltxv-13b": (Ltx, LTXV_13B, "LTXV"),
    "ltx-2": (Ltx2, {}, "LTXAV"),
    "hunyuan-video": (Hunyuan, HUNYUAN, "HunyuanVideo"),
    "hunyuan-video-1.5": (Hunyuan, HUNYUAN_15, "HunyuanVideo15"),
    "sdxl": (unet.UNetModel, SDXL, "SDXL"),
    "sd1.5": (unet.UNetModel, SD15, "SD15"),
    "wan2.2-ti2v-5b": (Wan, WAN_5B, "WAN22_T2V"),
    "wan2.2-t2v-14b": (Wan, WAN_14B, "WAN21_T2V"),
    "wan2.2-i2v-14b": (Wan, WAN_14B | {"in_dim": 36}, "WAN21_T2V"),
    "qwen-image-2512": (Qwen, QWEN, "QwenImage"),
    "qwen-image-edit-2511": (
        Qwen, QWEN | {"default_ref_method": "index_timestep_zero"}, "QwenImage",
    ),
    "seedvr2-3b": (SeedVR2, SEEDVR2_3B, "SeedVR2"),
    "seedvr2-7b": (SeedVR2, SEEDVR2_7B, "SeedVR2"),
}  # fmt: skip
TEXT: dict[str, tuple[Callable[..., torch.nn.Module], Mapping[str, Any], str]] = {
    "t5-xxl": (T5, t5_config("t5"), "T5_XXL"),
    "umt5-xxl": (T5, t5_config("umt5"), "T5_XXL"),
    "qwen2.5-vl-7b": (Llama.Qwen25_7BVLI, {}, "QWEN25_7B"),
    "qwen3-4b": (Llama.Qwen3_4B, {}, "QWEN3_4B"),
}
# What the published file holds and ComfyUI's module does not.
BESIDE: dict[str, Shapes] = {
    "qwen-image-edit-2511": {"__index_timestep_zero__": (0,)},
    "qwen2.5-vl-7b": {"lm_head.weight": (152064, 3584)},
}


def shapes_of(model: str) -> Shapes:
    """Build a model and return the shapes of its tensors; refuse what is detected otherwise."""
    make, config, expected = (DIFFUSION | TEXT)[model]
    place = {
        "device": "meta", "dtype": torch.bfloat16, "operations": comfy.ops.disable_weight_init,
    }  # fmt: skip
    built = make(dict(config), **place) if model in TEXT else make(**config, **place)
    tensors = built.state_dict()
    for name, shape in BESIDE.get(model, {}).items():
        tensors[name] = torch.empty(shape, device="meta")
    if model in TEXT:
        detected = comfy.sd.detect_te_model(tensors)
        found = detected.name if detected else None
    else:
        found = type(comfy.model_detection.model_config_from_unet(tensors, "")).__name__
    if found != expected:
        raise RuntimeError(f"{model} is detected as {found}, not {expected}")
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def fold(shapes: Shapes) -> Shapes:
    """Write ``blocks.0.q``, ``blocks.1.q``, ... of one shape as ``blocks.{0..1}.q``."""
    deepest = max(name.count(".") for name in shapes)
    for depth in range(deepest, -1, -1):
        groups: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}
        folded: Shapes = {}
        for name, shape in shapes.items():
            parts = name.split(".")
            if depth < len(parts) and parts[depth].isdigit():
                ends = ".".join(parts[:depth]), ".".join(parts[depth + 1 :])
                groups.setdefault((*ends, shape), []).append(int(parts[depth]))
            else:
                folded[name] = shape
        for (before, after, shape), indices in groups.items():
            for first, last in runs(sorted(indices)):
                index = str(first) if first == last else f"{{{first}..{last}}}"
                folded[".".join(filter(None, (before, index, after)))] = shape
        shapes = folded
    return shapes


def runs(indices: list[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and index == found[-1][1] + 1:
            found[-1] = (found[-1][0], index)
        else:
            found.append((index, index))
    return found


def natural(name: str) -> list[tuple[int, str]]:
    """Sort ``blocks.2`` before ``blocks.10``."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def write(model: str) -> None:
    """Write one list, an entry a line."""
    folded = fold(shapes_of(model))
    lines = [
        f" {json.dumps(name)}: {json.dumps(list(folded[name]))}"
        for name in sorted(folded, key=natural)
    ]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (folder / f"{model}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    logging.disable(logging.INFO)
    for model in models or (*DIFFUSION, *TEXT):
        write(model)
