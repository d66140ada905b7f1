"""Models of images, Flux's relatives and the U-Nets apart."""

from __future__ import annotations

from tiny_family import Family, Ids

_SD35 = {
    "in_channels": 16, "patch_size": 2, "out_channels": 16, "depth": 3, "input_size": None,
    "adm_in_channels": 2048, "num_patches": 64, "pos_embed_max_size": 8, "qk_norm": "rms",
    "pos_embed_scaling_factor": None, "x_block_self_attn_layers": [0],
    "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": 64, "out_features": 192},
    },
}  # fmt: skip
_AURA = {"max_seq": 64, "cond_seq_dim": 2048, "n_double_layers": 3, "n_layers": 6}
_HIDREAM = {
    "attention_head_dim": 128, "axes_dims_rope": [64, 32, 32], "max_resolution": [128, 128],
    "in_channels": 16, "num_routed_experts": 4, "num_activated_experts": 2, "out_channels": 16,
    "patch_size": 2, "text_emb_dim": 2048,
}  # fmt: skip
_OMNIGEN = {
    "axes_dim_rope": [40, 40, 40], "axes_lens": [1024, 1664, 1664], "ffn_dim_multiplier": None,
    "in_channels": 16, "multiple_of": 256, "norm_eps": 1e-5, "out_channels": None,
    "patch_size": 2, "timestep_scale": 1000.0,
}  # fmt: skip
_BOOGU = {
    "hidden_size": 480, "num_layers": 3, "num_double_stream_layers": 1, "num_refiner_layers": 1,
    "instruction_feat_dim": 64,
}  # fmt: skip
_LUMINA = {
    "patch_size": 2, "in_channels": 16, "cap_feat_dim": 64, "n_layers": 3, "qk_norm": True,
}  # fmt: skip
_LUMINA_2 = {
    "dim": 192, "n_heads": 2, "n_kv_heads": 1, "n_refiner_layers": 1, "axes_dims": [32, 32, 32],
    "axes_lens": [300, 512, 512], "multiple_of": 64, "rope_theta": 10000.0,
    "ffn_dim_multiplier": 4.0,
}  # fmt: skip
_Z_IMAGE = {
    "dim": 256, "n_heads": 2, "n_kv_heads": 2, "n_refiner_layers": 1, "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512], "rope_theta": 256.0, "ffn_dim_multiplier": 8 / 3,
    "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip
_KREA = {
    "features": 256, "channels": 16, "patch": 2, "layers": 3, "heads": 2, "kvheads": 1,
    "txtlayers": 3, "txtdim": 128,
}  # fmt: skip
_LENS = {
    "in_channels": 128, "out_channels": 32, "num_layers": 3, "num_attention_heads": 2,
    "enc_hidden_dim": 64, "multi_layer_encoder_feature": True, "selected_layer_index": (0, 1, 2),
}  # fmt: skip
_JOY = {
    "in_channels": 16, "hidden_size": 128, "patch_size": [1, 2, 2], "num_layers": 3,
    "num_attention_heads": 1, "text_dim": 4096,
}  # fmt: skip
_HYDIT = {"depth": 4, "hidden_size": 256}
_PIXART = {
    "patch_size": 2, "in_channels": 4, "depth": 3, "model_max_length": 300,
    "micro_condition": False,
}  # fmt: skip

FAMILIES = {
    "sd3.5": Family(
        "modules.diffusionmodules.mmdit:OpenAISignatureMMDITWrapper", _SD35,
        (1, 16, 8, 8), (1, 5, 64), pooled=2048,
    ),
    "auraflow": Family(
        "aura.mmdit:MMDiT", _AURA, (1, 4, 8, 8), (1, 5, 2048),
        sizes={"dim": 256, "n_heads": 1, "global_conddim": 256},
    ),
    "hidream-i1": Family(
        "hidream.model:HiDreamImageTransformer2DModel", _HIDREAM, (1, 16, 8, 8), (1, 5, 64),
        pooled=2048, extra={"conditioning_llama3": (1, 4, 5, 64)},
        sizes={"num_attention_heads": 2, "caption_channels": [64, 64], "num_layers": 3,
               "num_single_layers": 1, "llama_layers": [0, 1, 2, 3]},
    ),
    "omnigen2": Family(
        "omnigen.omnigen2:OmniGen2Transformer2DModel", _OMNIGEN, (1, 16, 8, 8), (1, 5, 64),
        masked=True,
        sizes={"hidden_size": 360, "num_attention_heads": 3, "num_kv_heads": 1, "num_layers": 3,
               "num_refiner_layers": 1, "text_feat_dim": 64},
    ),
    "boogu": Family(
        "boogu.model:BooguTransformer2DModel", _BOOGU, (1, 16, 8, 8), (1, 5, 64), masked=True,
        sizes={"num_attention_heads": 4, "num_kv_heads": 1},
    ),
    "lumina2": Family(
        "lumina.model:NextDiT", _LUMINA, (1, 16, 8, 8), (1, 5, 64), marks={"dim": 2304},
        sizes=_LUMINA_2,
    ),
    "z-image": Family(
        "lumina.model:NextDiT", _LUMINA, (1, 16, 8, 8), (1, 5, 64), marks={"dim": 3840},
        sizes=_Z_IMAGE,
    ),
    "qwen-image": Family(
        "qwen_image.model:QwenImageTransformer2DModel", {"in_channels": 64, "num_layers": 3},
        (1, 16, 1, 8, 8), (1, 5, 3584), sizes={"num_attention_heads": 1},
    ),
    "mage-flow": Family(
        "mage_flow.model:MageFlowTransformer2DModel", {"in_channels": 128, "num_layers": 3},
        (1, 128, 4, 4), (1, 5, 2560), sizes={"num_attention_heads": 1},
    ),
    "lens": Family(
        "lens.model:LensTransformer2DModel", _LENS, (1, 128, 4, 4), (1, 5, 192)
    ),
    "joyimage": Family(
        "joyimage.model:JoyImageTransformer3DModel", _JOY, (1, 16, 1, 4, 4), (1, 5, 4096)
    ),
    "krea2": Family(
        "krea2.model:SingleStreamDiT", _KREA, (1, 16, 8, 8), (1, 5, 384),
        sizes={"txtheads": 1, "txtkvheads": 1},
    ),
    "ideogram4": Family(
        "ideogram4.model:Ideogram4Transformer2DModel", {"in_channels": 128, "num_layers": 3},
        (1, 128, 4, 4), (1, 5, 64),
        sizes={"num_attention_heads": 1, "intermediate_size": 256, "adaln_dim": 64,
               "llm_features_dim": 64},
    ),
    "ernie-image": Family(
        "ernie.model:ErnieImageModel", {}, (1, 128, 4, 4), (1, 5, 64),
        sizes={"hidden_size": 128, "num_attention_heads": 1, "num_layers": 3,
               "ffn_hidden_size": 256, "text_in_dim": 64},
    ),
    "pixart-sigma": Family(
        "pixart.pixartms:PixArtMS", _PIXART, (1, 4, 64, 64), (1, 5, 4096),
        sizes={"num_heads": 2, "hidden_size": 128},
    ),
    "hunyuan-dit": Family(
        "hydit.models:HunYuanDiT", _HYDIT, (1, 4, 8, 8), (1, 77, 1024), masked=True,
        extra={"conditioning_mt5xl": (1, 256, 64), "attention_mask_mt5xl": (1, 256)},
        sizes={"num_heads": 4, "text_states_dim_t5": 64},
    ),
    "hidream-o1": Family(
        "hidream_o1.model:HiDreamO1Transformer", {}, (1, 3, 64, 64), (1, 5, 64),
        extra={"text_input_ids": Ids((1, 6), 60)},
        sizes={"text_config_overrides": {"hidden_size": 128, "intermediate_size": 256,
                                         "num_hidden_layers": 3, "num_attention_heads": 1,
                                         "num_key_value_heads": 1, "vocab_size": 152064},
               "vision_config_overrides": {"depth": 3, "hidden_size": 64, "num_heads": 1,
                                           "intermediate_size": 128,
                                           "deepstack_visual_indexes": []}},
    ),
}  # fmt: skip
