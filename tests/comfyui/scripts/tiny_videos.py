"""Models of video and of audio, WAN and Hunyuan apart."""

from __future__ import annotations

import json

from tiny_family import Family, Ids

_LTXV = {"num_layers": 3, "attention_head_dim": 8, "cross_attention_dim": 256}
# What the file's own metadata says wins over what ComfyUI reads off the shapes.
_LTX2 = _LTXV | {
    "audio_attention_head_dim": 4, "audio_cross_attention_dim": 128, "caption_channels": 128,
    "connector_attention_head_dim": 16, "connector_num_attention_heads": 8,
    "connector_num_layers": 1, "apply_gated_attention": True,
}  # fmt: skip
_MOCHI = {
    "patch_size": 2, "mlp_ratio_y": 4.0, "learn_sigma": False,
    "in_channels": 12, "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0,
    "patch_embed_bias": True, "posenc_preserve_area": True, "timestep_mlp_bias": True,
    "attend_to_padding": False, "timestep_scale": 1000.0, "use_t5": True, "t5_token_length": 256,
    "rope_theta": 10000.0,
}  # fmt: skip
_COSMOS = {
    "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16, "out_channels": 16,
    "patch_spatial": 2, "patch_temporal": 1, "model_channels": 256, "concat_padding_mask": True,
    "pos_emb_cls": "rope3d", "pos_emb_interpolation": "crop", "use_adaln_lora": True,
    "adaln_lora_dim": 256,
}  # fmt: skip
_COSMOS1 = _COSMOS | {
    "block_config": "FA-CA-MLP", "block_x_format": "THWBD", "affline_emb_norm": True,
    "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip
_COSMOS2 = _COSMOS | {"pos_emb_learnable": True, "rope_enable_fps_modulation": False}
_COGVIDEOX = {
    "num_attention_heads": 2, "attention_head_dim": 64, "time_embed_dim": 64, "num_layers": 3,
    "in_channels": 16, "patch_size": 2, "text_embed_dim": 64,
    "use_learned_positional_embeddings": False, "use_rotary_positional_embeddings": True,
}  # fmt: skip
_KANDINSKY = {
    "model_dim": 128, "time_dim": 64, "ff_dim": 256, "visual_embed_dim": 132,
    "num_text_blocks": 1, "num_visual_blocks": 3,
}  # fmt: skip
_H3 = {
    "num_layers": 3, "token_refiner_num_layers": 1, "hidden_size": 128, "latents_dim": 24,
    "audio_latents_dim": 32, "attention_head_dim": 128, "num_attention_heads": 1,
    "ffn_hidden_size": 256, "text_dim": 64, "timestep_input_dim": 256,
    "time_embed_hidden_size": 128, "time_embed_dim": 64, "rope_inv_freq_len": 16,
}  # fmt: skip
_ACE = {
    "in_channels": 8, "out_channels": 8, "max_height": 16, "max_position": 32768,
    "max_width": 32768, "mlp_ratio": 2.5, "patch_size": [16, 1], "rope_theta": 1000000.0,
    "speaker_embedding_dim": 512, "text_embedding_dim": 768, "ssl_encoder_depths": [8, 8],
    "ssl_names": ["mert", "m-hubert"], "attention_head_dim": 128,
}  # fmt: skip
_ACE15 = {
    "hidden_size": 128, "intermediate_size": 256, "num_heads": 1, "encoder_hidden_size": 128,
    "encoder_num_heads": 1, "encoder_intermediate_size": 256, "num_dit_layers": 3,
}  # fmt: skip
_STABLE_AUDIO = {
    "global_cond_dim": 1536, "project_cond_tokens": False, "embed_dim": 768,
    "timestep_features_type": "learned", "io_channels": 64, "input_concat_dim": 0, "depth": 3,
}  # fmt: skip
_SECONDS = ("audio.embedders:NumberConditioner", {"output_dim": 768, "min_val": 0, "max_val": 512})

FAMILIES = {
    "ltxv": Family(
        "lightricks.model:LTXVModel", _LTXV, (1, 128, 2, 4, 4), (1, 5, 4096), masked=True
    ),
    "ltx-2": Family(
        "lightricks.av_model:LTXAVModel", _LTX2, ((1, 128, 2, 4, 4), (1, 8, 4, 16)), (1, 8, 128),
        metadata={"config": json.dumps({"transformer": _LTX2})},
    ),
    "mochi": Family(
        "genmo.joint_model.asymm_models_joint:AsymmDiTJoint", _MOCHI,
        (1, 12, 1, 4, 4), (1, 256, 64), masked=True,
        sizes={"depth": 3, "num_heads": 1, "hidden_size_x": 128, "hidden_size_y": 64,
               "t5_feat_dim": 64, "mlp_ratio_x": 96.0},
    ),
    "cosmos": Family(
        "cosmos.model:GeneralDIT", _COSMOS1, (1, 16, 1, 8, 8), (1, 5, 1024),
        sizes={"num_blocks": 3, "num_heads": 2},
    ),
    "cosmos-predict2": Family(
        "cosmos.predict2:MiniTrainDIT", _COSMOS2, (1, 16, 1, 8, 8), (1, 5, 1024),
        sizes={"num_blocks": 3, "num_heads": 2},
    ),
    "anima": Family(
        "anima.model:Anima", _COSMOS2, (1, 16, 1, 8, 8), (1, 5, 128),
        extra={"t5xxl_ids": Ids((6,), 32128), "t5xxl_weights": (6,)},
        sizes={"num_blocks": 3, "num_heads": 2, "crossattn_emb_channels": 128},
        parts={"anima.model:LLMAdapter": {"source_dim": 128, "target_dim": 128, "model_dim": 128,
                                          "num_layers": 3, "num_heads": 2}},
    ),
    "cogvideox": Family(
        "cogvideo.model:CogVideoXTransformer3DModel", _COGVIDEOX, (1, 16, 2, 4, 4), (1, 5, 64)
    ),
    "kandinsky5": Family(
        "kandinsky5.model:Kandinsky5", _KANDINSKY, (1, 16, 1, 4, 4), (1, 5, 3584), pooled=768
    ),
    "minimax-h3": Family(
        "minimax.model:MiniMaxH3Model", _H3, ((1, 24, 2, 4, 4), (1, 32, 2, 8)), (1, 5, 64)
    ),
    "ace-step": Family(
        "ace.model:ACEStepTransformer2DModel", _ACE, (1, 8, 16, 6), (1, 5, 768),
        extra={"conditioning_lyrics": Ids((1, 4), 60)},
        sizes={"inner_dim": 128, "num_attention_heads": 1, "num_layers": 3,
               "lyric_encoder_vocab_size": 64, "lyric_hidden_size": 64,
               "ssl_latent_dims": [64, 64]},
        parts={"ace.model:LyricEncoder": {"output_size": 64, "attention_heads": 2,
                                          "linear_units": 128, "num_blocks": 2}},
    ),
    "ace-step-1.5": Family(
        "ace.ace_step15:AceStepConditionGenerationModel", _ACE15, (1, 64, 20), (1, 5, 1024),
        extra={"conditioning_lyrics": (1, 4, 1024)},
        sizes={"num_kv_heads": 1, "fsq_dim": 128, "num_lyric_layers": 1, "num_timbre_layers": 1,
               "num_tokenizer_layers": 1},
    ),
    "stable-audio": Family(
        "audio.dit:AudioDiffusionTransformer", _STABLE_AUDIO, (1, 64, 16), (1, 5, 768),
        sizes={"num_heads": 12},
        beside={"conditioner.conditioners.seconds_start.": _SECONDS,
                "conditioner.conditioners.seconds_total.": _SECONDS},
    ),
}  # fmt: skip
