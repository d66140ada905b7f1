"""Configurations of published models, for every class that ComfyUI can load as a diffusion model.

`DIFFUSION` has one entry per published model: the class of ``comfy.supported_models`` that loads
it, and what that class is told about it. ``generate_key_lists.py`` builds them. Numbers are those
that ComfyUI's own detection reads from the published files, or the defaults of ComfyUI's classes,
which are the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A published model: ComfyUI's class for it and its configuration.

    ``transformer`` is what the ``config`` of its header says of the transformer. ComfyUI tells a
    few classes apart only by that. ``since`` is the first of the ComfyUI versions we know (0.29
    and 0.33) that has the class.
    """

    loaded_as: str
    config: Config
    transformer: Mapping[str, Any] = field(default_factory=dict)
    since: str = "0.29"


@dataclass(frozen=True)
class TextEncoder:
    """A published text encoder: what ComfyUI takes it for, and what its file holds beside it.

    ``renamed`` is the prefixes that ComfyUI's loader replaces, by those of the file. ``since`` is
    the first ComfyUI that knows the encoder.
    """

    loaded_as: str
    beside: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    since: str = "0.29"


FLUX: Config = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 768,
    "context_in_dim": 4096, "hidden_size": 3072, "mlp_ratio": 4.0, "num_heads": 24, "depth": 19,
    "depth_single_blocks": 38, "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
OVIS = FLUX | {
    "vec_in_dim": None, "context_in_dim": 2048, "depth": 6, "depth_single_blocks": 27,
    "guidance_embed": False, "yak_mlp": True, "txt_norm": True, "txt_ids_dims": [1, 2],
}  # fmt: skip
LONGCAT = FLUX | {
    "vec_in_dim": None, "context_in_dim": 3584, "depth": 10, "depth_single_blocks": 20,
    "guidance_embed": False, "txt_ids_dims": [1, 2],
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
    "nerf_tile_size": 512, "nerf_final_head_type": "conv", "use_x0": False,
    "use_sequential_txt_ids": False, "nerf_embedder_dtype": None,
}  # fmt: skip
LUMINA: Config = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 2304,
    "cap_feat_dim": 2304, "n_layers": 26, "qk_norm": True, "n_heads": 24, "n_kv_heads": 8,
    "axes_dims": [32, 32, 32], "axes_lens": [300, 512, 512], "rope_theta": 10000.0,
    "ffn_dim_multiplier": 4.0,
}  # fmt: skip
Z_IMAGE = LUMINA | {
    "dim": 3840, "cap_feat_dim": 2560, "n_layers": 30, "n_heads": 30, "n_kv_heads": 30,
    "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "ffn_dim_multiplier": 8 / 3,
    "z_image_modulation": True, "pad_tokens_multiple": 32,
}  # fmt: skip
Z_IMAGE_PIXEL = Z_IMAGE | {
    "image_model": "zimage_pixel", "patch_size": 32, "in_channels": 3,
    "decoder_in_channels": 3072, "decoder_hidden_size": 3840, "decoder_num_res_blocks": 4,
    "decoder_max_freqs": 8,
}  # fmt: skip
HUNYUAN: Config = {
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
HUNYUAN_IMAGE = HUNYUAN | {
    "in_channels": 64, "patch_size": [1, 1], "out_channels": 64, "vec_in_dim": None,
    "axes_dim": [64, 64], "context_in_dim": 3584, "hidden_size": 3584, "num_heads": 28,
    "guidance_embed": False, "byt5": True,
}  # fmt: skip
HUNYUAN_REFINER = HUNYUAN | {
    "in_channels": 128, "patch_size": [1, 1, 1], "out_channels": 64, "vec_in_dim": None,
    "context_in_dim": 3584, "hidden_size": 3328, "num_heads": 26, "depth": 20,
    "depth_single_blocks": 40, "guidance_embed": True, "meanflow": True,
}  # fmt: skip
LTXV_2B: Config = {
    "image_model": "ltxv", "num_layers": 28, "attention_head_dim": 64, "cross_attention_dim": 2048,
}  # fmt: skip
LTXV_13B = LTXV_2B | {"num_layers": 48, "attention_head_dim": 128, "cross_attention_dim": 4096}
LTX_2: Config = {"image_model": "ltxav"}
LTX_23 = {"apply_gated_attention": True, "cross_attention_adaln": True}
UNET: Config = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "use_spatial_transformer": True, "legacy": False, "use_temporal_attention": False,
    "use_temporal_resblock": False, "adm_in_channels": None,
}  # fmt: skip
SD15 = UNET | {
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "use_linear_in_transformer": False, "context_dim": 768,
}  # fmt: skip
SD2 = SD15 | {"use_linear_in_transformer": True, "context_dim": 1024}
UPSCALER = SD2 | {
    "model_channels": 256, "in_channels": 7, "channel_mult": [1, 2, 2, 4],
    "transformer_depth": [0, 0, 1, 1, 1, 1, 1, 1],
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1],
}  # fmt: skip
VIDEO = SD2 | {
    "in_channels": 8, "num_classes": "sequential", "adm_in_channels": 768,
    "extra_ff_mix_layer": True, "use_spatial_context": True,
    "merge_strategy": "learned_with_images", "merge_factor": 0.0, "video_kernel_size": [3, 1, 1],
    "use_temporal_resblock": True, "use_temporal_attention": True,
    "disable_temporal_crossattention": False,
}  # fmt: skip
SDXL = UNET | {
    "num_classes": "sequential", "adm_in_channels": 2816, "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10, "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "use_linear_in_transformer": True, "context_dim": 2048,
}  # fmt: skip
REFINER = SDXL | {
    "model_channels": 384, "adm_in_channels": 2560, "context_dim": 1280,
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0], "transformer_depth_middle": 4,
    "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
}  # fmt: skip
SSD_1B = SDXL | {
    "transformer_depth": [0, 0, 2, 2, 4, 4], "transformer_depth_middle": -1,
    "transformer_depth_output": [0, 0, 0, 1, 1, 2, 10, 4, 4],
}  # fmt: skip
VEGA = SDXL | {
    "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_middle": -1,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
}  # fmt: skip
KOALA_1B = SDXL | {
    "num_res_blocks": [1, 1, 1], "transformer_depth": [0, 2, 6], "transformer_depth_middle": 6,
    "transformer_depth_output": [0, 0, 2, 2, 6, 6],
}  # fmt: skip
KOALA_700M = KOALA_1B | {
    "transformer_depth": [0, 2, 5], "transformer_depth_middle": -2,
    "transformer_depth_output": [0, 0, 2, 2, 5, 5],
}  # fmt: skip
WAN_14B: Config = {
    "image_model": "wan2.1", "model_type": "t2v", "patch_size": (1, 2, 2), "dim": 5120,
    "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "in_dim": 16, "out_dim": 16,
}  # fmt: skip
WAN_1B = WAN_14B | {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30}
WAN_5B = WAN_14B | {
    "dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30, "in_dim": 48, "out_dim": 48,
}  # fmt: skip
WAN_I2V = WAN_14B | {"model_type": "i2v", "in_dim": 36}
QWEN: Config = {"image_model": "qwen_image", "num_layers": 60}
SEEDVR2_3B: Config = {
    "image_model": "seedvr2", "vid_dim": 2560, "heads": 20, "num_layers": 32, "norm_eps": 1e-5,
    "mlp_type": "swiglu", "vid_out_norm": True,
}  # fmt: skip
SEEDVR2_7B: Config = {
    "image_model": "seedvr2", "vid_dim": 3072, "heads": 24, "num_layers": 36, "mm_layers": 36,
    "norm_eps": 1e-5, "rope_type": "rope3d", "rope_dim": 64, "mlp_type": "normal",
}  # fmt: skip
SEEDVR2_7B_SHARP = SEEDVR2_7B | {"mm_layers": 10, "mlp_type": "swiglu"}
SD35_LARGE: Config = {
    "in_channels": 16, "patch_size": 2, "out_channels": 16, "depth": 38, "input_size": None,
    "adm_in_channels": 2048, "num_patches": 36864, "pos_embed_max_size": 192, "qk_norm": "rms",
    "pos_embed_scaling_factor": None, "x_block_self_attn_layers": [],
    "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 2432},
    },
}  # fmt: skip
SD3_MEDIUM = SD35_LARGE | {
    "depth": 24, "qk_norm": None,
    "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 1536},
    },
}  # fmt: skip
SD35_MEDIUM = SD3_MEDIUM | {
    "qk_norm": "rms", "num_patches": 147456, "pos_embed_max_size": 384,
    "x_block_self_attn_layers": list(range(13)),
}  # fmt: skip
COSMOS: Config = {
    "image_model": "cosmos", "max_img_h": 240, "max_img_w": 240, "max_frames": 128,
    "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1,
    "model_channels": 4096, "block_config": "FA-CA-MLP", "concat_padding_mask": True,
    "pos_emb_cls": "rope3d", "pos_emb_learnable": False, "pos_emb_interpolation": "crop",
    "block_x_format": "THWBD", "affline_emb_norm": True, "use_adaln_lora": True,
    "adaln_lora_dim": 256, "num_blocks": 28, "num_heads": 32, "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip
COSMOS_14B = COSMOS | {"model_channels": 5120, "num_blocks": 36, "num_heads": 40}
PREDICT2: Config = {
    "image_model": "cosmos_predict2", "max_img_h": 240, "max_img_w": 240, "max_frames": 128,
    "in_channels": 16, "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1,
    "model_channels": 2048, "concat_padding_mask": True, "crossattn_emb_channels": 1024,
    "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "pos_emb_interpolation": "crop",
    "use_adaln_lora": True, "adaln_lora_dim": 256, "num_blocks": 28, "num_heads": 16,
    "extra_per_block_abs_pos_emb": False,
}  # fmt: skip
PREDICT2_14B = PREDICT2 | {"model_channels": 5120, "num_blocks": 36, "num_heads": 40}
MOCHI: Config = {
    "image_model": "mochi_preview", "depth": 48, "patch_size": 2, "num_heads": 24,
    "hidden_size_x": 3072, "hidden_size_y": 1536, "mlp_ratio_x": 4.0, "mlp_ratio_y": 4.0,
    "learn_sigma": False, "in_channels": 12, "qk_norm": True, "qkv_bias": False, "out_bias": True,
    "attn_drop": 0.0, "patch_embed_bias": True, "posenc_preserve_area": True,
    "timestep_mlp_bias": True, "attend_to_padding": False, "timestep_scale": 1000.0,
    "use_t5": True, "t5_feat_dim": 4096, "t5_token_length": 256, "rope_theta": 10000.0,
}  # fmt: skip
HIDREAM: Config = {
    "image_model": "hidream", "attention_head_dim": 128, "axes_dims_rope": [64, 32, 32],
    "caption_channels": [4096, 4096], "max_resolution": [128, 128], "in_channels": 16,
    "llama_layers": [*range(32), *[31] * 16], "num_attention_heads": 20, "num_routed_experts": 4,
    "num_activated_experts": 2, "num_layers": 16, "num_single_layers": 32, "out_channels": 16,
    "patch_size": 2, "text_emb_dim": 2048,
}  # fmt: skip
ACE: Config = {
    "audio_model": "ace", "attention_head_dim": 128, "in_channels": 8, "inner_dim": 2560,
    "max_height": 16, "max_position": 32768, "max_width": 32768, "mlp_ratio": 2.5,
    "num_attention_heads": 20, "num_layers": 24, "out_channels": 8, "patch_size": [16, 1],
    "rope_theta": 1000000.0, "speaker_embedding_dim": 512, "text_embedding_dim": 768,
    "ssl_encoder_depths": [8, 8], "ssl_latent_dims": [1024, 768], "ssl_names": ["mert", "m-hubert"],
    "lyric_encoder_vocab_size": 6693, "lyric_hidden_size": 1024,
}  # fmt: skip
PIXART: Config = {
    "image_model": "pixart_sigma", "num_heads": 16, "patch_size": 2, "hidden_size": 1152,
    "in_channels": 4, "depth": 28, "model_max_length": 300, "input_size": 128,
    "pe_interpolation": 2, "micro_condition": False,
}  # fmt: skip
HUNYUAN_DIT: Config = {
    "image_model": "hydit", "depth": 40, "hidden_size": 1408, "mlp_ratio": 4.3637,
}  # fmt: skip
HUNYUAN_3D: Config = {
    "image_model": "hunyuan3d2", "in_channels": 64, "context_in_dim": 1536, "hidden_size": 1024,
    "mlp_ratio": 4.0, "num_heads": 16, "depth": 16, "depth_single_blocks": 32, "qkv_bias": True,
    "guidance_embed": False,
}  # fmt: skip
HUNYUAN_3D_21: Config = {
    "image_model": "hunyuan3d2_1", "in_channels": 64, "context_dim": 1024, "hidden_size": 2048,
    "mlp_ratio": 4.0, "num_heads": 16, "depth": 21, "qkv_bias": False,
    "guidance_cond_proj_dim": None,
}  # fmt: skip
OMNIGEN2: Config = {
    "image_model": "omnigen2", "axes_dim_rope": [40, 40, 40], "axes_lens": [1024, 1664, 1664],
    "ffn_dim_multiplier": None, "hidden_size": 2520, "in_channels": 16, "multiple_of": 256,
    "norm_eps": 1e-5, "num_attention_heads": 21, "num_kv_heads": 7, "num_layers": 32,
    "num_refiner_layers": 2, "out_channels": None, "patch_size": 2, "text_feat_dim": 2048,
    "timestep_scale": 1000.0,
}  # fmt: skip
KANDINSKY: Config = {
    "image_model": "kandinsky5", "model_dim": 1792, "ff_dim": 7168, "time_dim": 512,
    "visual_embed_dim": 132, "num_text_blocks": 2, "num_visual_blocks": 32,
    "axes_dims": (16, 24, 24),
}  # fmt: skip
KANDINSKY_PRO = KANDINSKY | {
    "model_dim": 4096, "ff_dim": 16384, "time_dim": 1024, "num_text_blocks": 4,
    "num_visual_blocks": 60, "axes_dims": (32, 48, 48),
}  # fmt: skip
KANDINSKY_IMAGE = KANDINSKY | {
    "model_dim": 2560, "ff_dim": 10240, "visual_embed_dim": 64, "num_visual_blocks": 50,
    "axes_dims": (32, 48, 48), "rope_scale_factor": (1.0, 1.0, 1.0),
}  # fmt: skip
STABLE_AUDIO: Config = {
    "audio_model": "dit1.0", "io_channels": 64, "embed_dim": 1536, "depth": 24, "num_heads": 24,
    "global_cond_dim": 1536, "project_cond_tokens": False, "input_concat_dim": 0,
    "timestep_features_type": "learned",
}  # fmt: skip
# Widths of Stable Audio 3 are made up: its weights are not public. Its layers are what counts.
STABLE_AUDIO_3 = STABLE_AUDIO | {
    "global_cond_shared_embed": True, "global_cond_type": "adaLN", "num_memory_tokens": 64,
    "timestep_features_type": "expo", "norm_type": "rms_norm", "local_add_cond_dim": 64,
    "attn_kwargs": {"qk_norm": "rms", "differential": True}, "global_cond_dim": 768,
    "project_cond_tokens": True,
}  # fmt: skip
COGVIDEO: Config = {
    "image_model": "cogvideox", "num_attention_heads": 48, "attention_head_dim": 64,
    "time_embed_dim": 512, "num_layers": 42, "in_channels": 16, "patch_size": 2,
    "text_embed_dim": 4096, "use_learned_positional_embeddings": False,
    "use_rotary_positional_embeddings": True,
}  # fmt: skip
COGVIDEO_2B = COGVIDEO | {
    "num_attention_heads": 30, "num_layers": 30, "use_rotary_positional_embeddings": False,
}  # fmt: skip
COGVIDEO_15 = COGVIDEO | {"patch_size_t": 2, "patch_bias": True}
DEPTH: Config = {
    "image_model": "DepthAnything3", "backbone_name": "vitl", "out_layers": [4, 11, 17, 23],
    "head_dim_in": 1024, "head_features": 256, "head_out_channels": [256, 512, 1024, 1024],
    "head_type": "dpt", "head_output_dim": 1, "head_use_sky_head": True,
}  # fmt: skip
DEPTH_LARGE = DEPTH | {
    "out_layers": [11, 15, 19, 23], "alt_start": 8, "rope_start": 8, "qknorm_start": 8,
    "cat_token": True, "head_type": "dualdpt", "head_dim_in": 2048, "head_output_dim": 2,
    "head_use_sky_head": False, "has_cam_enc": True, "has_cam_dec": True,
    "cam_dim_out": 1024, "cam_dec_dim_in": 2048,
}  # fmt: skip

DIFFUSION: dict[str, Published] = {
    # Flux and its relatives
    "flux1-dev": Published("Flux", FLUX),
    "flux1-fill": Published("FluxInpaint", FLUX | {"in_channels": 96}),
    "flux1-schnell": Published("FluxSchnell", FLUX | {"guidance_embed": False}),
    "ovis-image": Published("FluxSchnell", OVIS),
    "longcat-image": Published("LongCatImage", LONGCAT),
    "flux2-dev": Published("Flux2", FLUX2),
    "flux2-klein-4b": Published(
        "Flux2", KLEIN | {"context_in_dim": 7680, "hidden_size": 3072, "num_heads": 24, "depth": 5,
                          "depth_single_blocks": 20},
    ),
    "flux2-klein-9b": Published(
        "Flux2", KLEIN | {"context_in_dim": 12288, "hidden_size": 4096, "num_heads": 32,
                          "depth_single_blocks": 24},
    ),
    "chroma": Published("Chroma", CHROMA),
    "chroma-radiance": Published("ChromaRadiance", RADIANCE),
    # Lumina
    "lumina2": Published("Lumina2", LUMINA),
    "newbie": Published("Lumina2", LUMINA | {
        "cap_feat_dim": 2560, "n_layers": 36, "clip_text_dim": 1024}),
    "z-image": Published("ZImage", Z_IMAGE),
    "z-image-omni": Published("ZImage", Z_IMAGE | {"siglip_feat_dim": 1152}),
    "z-image-pixel": Published("ZImagePixelSpace", Z_IMAGE_PIXEL),
    # LTX
    "ltxv-2b": Published("LTXV", LTXV_2B),
    "ltxv-13b": Published("LTXV", LTXV_13B),
    "ltx-2": Published("LTXAV", LTX_2),
    "ltx-2.3": Published("LTXAV", LTX_2 | LTX_23, transformer=LTX_23),
    # Hunyuan
    "hunyuan-video": Published("HunyuanVideo", HUNYUAN),
    "hunyuan-video-i2v": Published("HunyuanVideoI2V", HUNYUAN | {"in_channels": 33}),
    "hunyuan-video-skyreels": Published("HunyuanVideoSkyreelsI2V", HUNYUAN | {"in_channels": 32}),
    "hunyuan-video-1.5": Published("HunyuanVideo15", HUNYUAN_15),
    "hunyuan-video-1.5-sr": Published(
        "HunyuanVideo15_SR_Distilled", HUNYUAN_15 | {"in_channels": 98}
    ),
    "hunyuan-image-2.1": Published("HunyuanImage21", HUNYUAN_IMAGE),
    "hunyuan-image-2.1-distilled": Published(
        "HunyuanImage21", HUNYUAN_IMAGE | {"guidance_embed": True, "meanflow": True}
    ),
    "hunyuan-image-2.1-refiner": Published("HunyuanImage21Refiner", HUNYUAN_REFINER),
    "hunyuan-dit": Published("HunyuanDiT", HUNYUAN_DIT),
    "hunyuan-dit-1.0": Published(
        "HunyuanDiT1", HUNYUAN_DIT | {
            "image_model": "hydit1", "size_cond": True, "use_style_cond": True}
    ),
    "hunyuan3d-2": Published("Hunyuan3Dv2", HUNYUAN_3D),
    "hunyuan3d-2-mini": Published("Hunyuan3Dv2mini", HUNYUAN_3D | {
        "depth": 8, "depth_single_blocks": 16}),
    "hunyuan3d-2.1": Published("Hunyuan3Dv2_1", HUNYUAN_3D_21),
    # Stable Diffusion
    "sd1.5": Published("SD15", SD15),
    "sd1.5-inpainting": Published("SD15", SD15 | {"in_channels": 9}),
    "sd1.5-pix2pix": Published("SD15_instructpix2pix", SD15 | {"in_channels": 8}),
    "zero123": Published("Stable_Zero123", SD15 | {"in_channels": 8}),
    "sd2.1": Published("SD20", SD2),
    "sd2.1-unclip-l": Published(
        "SD21UnclipL", SD2 | {"adm_in_channels": 1536, "num_classes": "sequential"}),
    "sd2.1-unclip-h": Published(
        "SD21UnclipH", SD2 | {"adm_in_channels": 2048, "num_classes": "sequential"}),
    "lotus-d": Published("LotusD", SD2 | {"adm_in_channels": 4, "num_classes": "sequential"}),
    "sd-x4-upscaler": Published("SD_X4Upscaler", UPSCALER),
    "sdxl": Published("SDXL", SDXL),
    "sdxl-inpainting": Published("SDXL", SDXL | {"in_channels": 9}),
    "sdxl-pix2pix": Published("SDXL_instructpix2pix", SDXL | {"in_channels": 8}),
    "sdxl-refiner": Published("SDXLRefiner", REFINER),
    "ssd-1b": Published("SSD1B", SSD_1B),
    "segmind-vega": Published("Segmind_Vega", VEGA),
    "koala-700m": Published("KOALA_700M", KOALA_700M),
    "koala-1b": Published("KOALA_1B", KOALA_1B),
    "svd": Published("SVD_img2vid", VIDEO),
    "sv3d-u": Published("SV3D_u", VIDEO | {"adm_in_channels": 256}),
    "sv3d-p": Published("SV3D_p", VIDEO | {"adm_in_channels": 1280}),
    "stable-cascade-c": Published("Stable_Cascade_C", {"stable_cascade_stage": "c"}),
    "stable-cascade-b": Published("Stable_Cascade_B", {"stable_cascade_stage": "b"}),
    "sd3-medium": Published("SD3", SD3_MEDIUM),
    "sd3.5-medium": Published("SD3", SD35_MEDIUM),
    "sd3.5-large": Published("SD3", SD35_LARGE),
    # WAN
    "wan2.1-t2v-1.3b": Published("WAN21_T2V", WAN_1B),
    "wan2.1-causal-ar": Published(
        "WAN21_CausalAR_T2V", WAN_1B, transformer={"causal_ar": True}),
    "wan2.1-i2v-14b": Published("WAN21_I2V", WAN_I2V),
    "wan2.1-flf2v-14b": Published("WAN21_I2V", WAN_I2V | {"flf_pos_embed_token_number": 514}),
    "wan2.1-fun-control-1.0": Published("WAN21_FunControl2V", WAN_I2V | {"in_dim": 48}),
    "wan2.1-fun-control": Published(
        "WAN21_FunControl2V", WAN_I2V | {"in_dim": 48, "in_dim_ref_conv": 16}),
    "wan2.2-ti2v-5b": Published("WAN22_T2V", WAN_5B),
    "wan2.2-t2v-14b": Published("WAN21_T2V", WAN_14B),
    "wan2.2-i2v-14b": Published("WAN21_T2V", WAN_14B | {"in_dim": 36}),
    "wan2.2-fun-control": Published("WAN21_T2V", WAN_14B | {
        "in_dim": 52, "in_dim_ref_conv": 16}),
    "wan2.1-vace-14b": Published("WAN21_Vace", WAN_14B | {
        "model_type": "vace", "vace_in_dim": 96, "vace_layers": 8}),
    "wan2.1-vace-1.3b": Published("WAN21_Vace", WAN_1B | {
        "model_type": "vace", "vace_in_dim": 96, "vace_layers": 15}),
    "wan2.1-camera": Published("WAN21_Camera", WAN_14B | {"model_type": "camera", "in_dim": 32}),
    "wan2.2-camera": Published(
        "WAN22_Camera", WAN_14B | {"model_type": "camera_2.2", "in_dim": 36}),
    "wan2.2-s2v": Published("WAN22_S2V", WAN_14B | {"model_type": "s2v"}),
    "wan-humo": Published("WAN21_HuMo", WAN_14B | {"model_type": "humo", "in_dim": 36}),
    "wan2.2-animate": Published("WAN22_Animate", WAN_14B | {
        "model_type": "animate", "in_dim": 36}),
    "wan-animate2": Published(
        "WAN_Animate2", WAN_14B | {"model_type": "animate2", "in_dim": 36},
        transformer={"model_type": "animate2"}, since="0.33"),
    "wan-flowrvs": Published(
        "WAN21_FlowRVS", WAN_1B | {"model_type": "flow_rvs"},
        transformer={"model_type": "flow_rvs"}),
    "wan-scail": Published("WAN21_SCAIL", WAN_14B | {"model_type": "scail", "in_dim": 20}),
    "wan-scail2": Published("WAN21_SCAIL2", WAN_14B | {"model_type": "scail2", "in_dim": 20}),
    "wan-dancer": Published("WAN22_WanDancer", WAN_14B | {
        "model_type": "wandancer", "in_dim": 36}),
    # other image models
    "qwen-image-2512": Published("QwenImage", QWEN),
    "qwen-image-edit-2511": Published(
        "QwenImage", QWEN | {"default_ref_method": "index_timestep_zero"}),
    "qwen-image-layered": Published("QwenImage", QWEN | {"use_additional_t_cond": True}),
    "mage-flow": Published("MageFlow", {"image_model": "mage_flow"}),
    "lens": Published("Lens", {"image_model": "lens"}),
    "joyimage": Published("JoyImage", {
        "image_model": "joyimage", "num_layers": 40, "hidden_size": 4096,
        "num_attention_heads": 32}),
    "auraflow": Published("AuraFlow", {
        "max_seq": 4096, "cond_seq_dim": 2048, "n_double_layers": 4, "n_layers": 36}),
    "pixart-alpha": Published("PixArtAlpha", PIXART | {
        "image_model": "pixart_alpha", "model_max_length": 120, "micro_condition": True}),
    "pixart-sigma": Published("PixArtSigma", PIXART),
    "hidream-i1": Published("HiDream", HIDREAM),
    "hidream-o1": Published("HiDreamO1", {"image_model": "hidream_o1"}),
    "omnigen2": Published("Omnigen2", OMNIGEN2),
    "boogu": Published("Boogu", {"image_model": "boogu"}),
    "ideogram4": Published("Ideogram4", {"image_model": "ideogram4"}),
    "krea2": Published("Krea2", {"image_model": "krea2"}),
    "ernie-image": Published("ErnieImage", {"image_model": "ernie"}),
    "pixeldit": Published("PixelDiTT2I", {"image_model": "pixeldit_t2i"}),
    "pid": Published("PiD", {"image_model": "pid"}),
    "anima": Published("Anima", PREDICT2 | {"image_model": "anima"}),
    "cosmos-predict2-t2i-2b": Published("CosmosT2IPredict2", PREDICT2),
    "cosmos-predict2-t2i-14b": Published("CosmosT2IPredict2", PREDICT2_14B),
    "cosmos-predict2-v2w-2b": Published("CosmosI2VPredict2", PREDICT2 | {"in_channels": 17}),
    "kandinsky5-image": Published("Kandinsky5Image", KANDINSKY_IMAGE),
    # other video models
    "kandinsky5-lite": Published("Kandinsky5", KANDINSKY),
    "kandinsky5-pro": Published("Kandinsky5", KANDINSKY_PRO),
    "mochi": Published("GenmoMochi", MOCHI),
    "minimax-h3": Published("MiniMaxH3", {"image_model": "minimax_h3"}, since="0.33"),
    "minimax-h3-curve": Published(
        "MiniMaxH3", {"image_model": "minimax_h3", "adaln_curve_grid": 1024,
                      "time_embed_dim": 32}, since="0.33"),
    "cosmos-t2v-7b": Published("CosmosT2V", COSMOS),
    "cosmos-t2v-14b": Published("CosmosT2V", COSMOS_14B),
    "cosmos-i2v-7b": Published("CosmosI2V", COSMOS | {"in_channels": 17}),
    "cogvideox-2b": Published("CogVideoX_T2V", COGVIDEO_2B),
    "cogvideox-5b": Published("CogVideoX_T2V", COGVIDEO),
    "cogvideox-5b-i2v": Published("CogVideoX_I2V", COGVIDEO | {
        "in_channels": 32, "use_learned_positional_embeddings": True}),
    "cogvideox-1.5-5b": Published("CogVideoX_T2V", COGVIDEO_15),
    "cogvideox-1.5-5b-i2v": Published("CogVideoX_I2V", COGVIDEO_15 | {
        "in_channels": 32, "ofs_embed_dim": 512}),
    "cogvideox-1.5-5b-inpaint": Published("CogVideoX_Inpaint", COGVIDEO_15 | {"in_channels": 48}),
    "seedvr2-3b": Published("SeedVR2", SEEDVR2_3B),
    "seedvr2-7b": Published("SeedVR2", SEEDVR2_7B),
    # audio
    "stable-audio": Published("StableAudio", STABLE_AUDIO),
    "stable-audio-3": Published("StableAudio3", STABLE_AUDIO_3),
    "ace-step": Published("ACEStep", ACE),
    "ace-step-1.5": Published("ACEStep15", {"audio_model": "ace1.5"}),
    "minimax-music3": Published("MiniMaxMusic3", {"audio_model": "minimax_music3"}, since="0.33"),
    # 3D and perception
    "trellis2": Published("Trellis2", {"image_model": "trellis2", "resolution": 64}, since="0.33"),
    "triposplat": Published("TripoSplat", {"image_model": "triposplat"}),
    "sam3": Published("SAM3", {"image_model": "SAM3"}),
    "sam3.1": Published("SAM31", {"image_model": "SAM31"}),
    "rt-detr": Published("RT_DETR_v4", {"image_model": "RT_DETR_v4"}),
    "depth-anything3": Published("DepthAnything3", DEPTH),
    "depth-anything3-large": Published("DepthAnything3", DEPTH_LARGE),
}  # fmt: skip

#: What stands for the name of a text encoder where there is none.
VAE = "VAE"
_QWEN_VL = {"model.language_model.": "model.", "model.visual.": "visual."}
TEXT: dict[str, TextEncoder] = {
    "t5-xxl": TextEncoder("T5_XXL"),
    "t5-xxl-first": TextEncoder("T5_XXL_OLD"),
    "umt5-xxl": TextEncoder("T5_XXL"),
    "qwen2.5-3b": TextEncoder("QWEN25_3B"),
    "qwen2.5-vl-7b": TextEncoder("QWEN25_7B", {"lm_head.weight": (152064, 3584)}),
    "qwen3-0.6b": TextEncoder("QWEN3_06B"),
    "qwen3-2b": TextEncoder("QWEN3_2B"),
    "qwen3-4b": TextEncoder("QWEN3_4B"),
    "qwen3-8b": TextEncoder("QWEN3_8B", {"lm_head.weight": (151936, 4096)}),
    "qwen3-vl-4b": TextEncoder("QWEN3VL_4B", renamed=_QWEN_VL),
    "qwen3-vl-8b": TextEncoder("QWEN3VL_8B", {"lm_head.weight": (151936, 4096)}, _QWEN_VL),
    "qwen3-vl-32b": TextEncoder("QWEN3VL_32B", since="0.33"),
    "qwen3.5-2b": TextEncoder("QWEN35_2B", renamed=_QWEN_VL),
    "qwen3.5-9b": TextEncoder("QWEN35_9B", {"lm_head.weight": (248320, 4096)}, _QWEN_VL),
    "gemma2-2b": TextEncoder("GEMMA_2_2B"),
    "gemma3-4b": TextEncoder("GEMMA_3_4B"),
    "gemma3-4b-vision": TextEncoder("GEMMA_3_4B_VISION"),
    "gemma3-12b": TextEncoder("GEMMA_3_12B"),
    "gemma4-e2b": TextEncoder("GEMMA_4_E2B"),
    "gemma4-e4b": TextEncoder("GEMMA_4_E4B"),
    "gemma4-12b": TextEncoder("GEMMA_4_12B"),
    "gemma4-31b": TextEncoder("GEMMA_4_31B"),
    "gpt-oss-20b": TextEncoder("GPT_OSS_20B"),
    "mistral3-24b": TextEncoder("MISTRAL3_24B"),
    "ministral3-3b": TextEncoder("MINISTRAL_3_3B"),
    "llama3-8b": TextEncoder("LLAMA3_8"),
    # known by another key, before ``detect_te_model`` is asked; it would be a Qwen3 8B
    "minimax-music3-te": TextEncoder("QWEN3_8B", since="0.33"),
    # a VAE that is built from the same layers
    "minimax-h3-vae": TextEncoder(VAE, since="0.33"),
}

#: Lists that hold only what differs from another list.
LIKE: dict[str, str] = {
    "flux1-fill": "flux1-dev",
    "hunyuan-video-i2v": "hunyuan-video",
    "hunyuan-video-skyreels": "hunyuan-video",
    "hunyuan-video-1.5-sr": "hunyuan-video-1.5",
    "sd1.5-inpainting": "sd1.5",
    "sd1.5-pix2pix": "sd1.5",
    "zero123": "sd1.5",
    "sd2.1-unclip-l": "sd2.1",
    "sd2.1-unclip-h": "sd2.1",
    "lotus-d": "sd2.1",
    "sdxl-inpainting": "sdxl",
    "sdxl-pix2pix": "sdxl",
    "sv3d-u": "svd",
    "sv3d-p": "svd",
    "wan2.1-causal-ar": "wan2.1-t2v-1.3b",
    "wan-flowrvs": "wan2.1-t2v-1.3b",
    "wan2.1-flf2v-14b": "wan2.1-i2v-14b",
    "wan2.1-fun-control": "wan2.1-i2v-14b",
    "wan2.1-fun-control-1.0": "wan2.1-i2v-14b",
    "wan-animate2": "wan2.1-i2v-14b",
    "wan2.2-i2v-14b": "wan2.2-t2v-14b",
    "wan2.2-fun-control": "wan2.2-t2v-14b",
    "cosmos-i2v-7b": "cosmos-t2v-7b",
    "cosmos-predict2-v2w-2b": "cosmos-predict2-t2i-2b",
    "qwen-image-edit-2511": "qwen-image-2512",
    "qwen-image-layered": "qwen-image-2512",
}
