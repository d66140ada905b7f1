"""Flux and the models built of its blocks."""

from __future__ import annotations

from tiny_family import Family, Tensors

_FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 64,
    "context_in_dim": 64, "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1, "depth": 3,
    "depth_single_blocks": 3, "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2,
    "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
_FLUX2 = _FLUX | {
    "image_model": "flux2", "in_channels": 128, "out_channels": 128, "vec_in_dim": None,
    "mlp_ratio": 3.0, "axes_dim": [32, 32, 32, 32], "theta": 2000, "patch_size": 1,
    "qkv_bias": False, "ops_bias": False, "global_modulation": True, "mlp_silu_act": True,
}  # fmt: skip
_CHROMA = {name: value for name, value in _FLUX.items() if name != "guidance_embed"} | {
    "image_model": "chroma", "in_channels": 64, "out_channels": 64, "vec_in_dim": None,
    "in_dim": 64, "n_layers": 5,
}  # fmt: skip
_RADIANCE = _CHROMA | {
    "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 4,
    "nerf_mlp_ratio": 4, "nerf_depth": 4, "nerf_max_freqs": 8, "nerf_tile_size": 512,
    "nerf_final_head_type": "conv", "use_x0": False, "use_sequential_txt_ids": False,
}  # fmt: skip
_HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 16, "patch_size": [1, 2, 2], "out_channels": 16,
    "vec_in_dim": 768, "axes_dim": [16, 56, 56], "context_in_dim": 64, "hidden_size": 128,
    "mlp_ratio": 4.0, "num_heads": 1, "depth": 3, "depth_single_blocks": 3, "theta": 256,
    "qkv_bias": True, "guidance_embed": True, "byt5": False, "meanflow": False,
    "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
_HUNYUAN_15 = _HUNYUAN | {
    "in_channels": 65, "patch_size": [1, 1, 1], "out_channels": 32, "vec_in_dim": None,
    "depth_single_blocks": 0, "guidance_embed": False, "use_cond_type_embedding": True,
    "vision_in_dim": 1152, "meanflow_sum": True,
}  # fmt: skip
_HUNYUAN_IMAGE = _HUNYUAN | {
    "in_channels": 64, "patch_size": [1, 1], "out_channels": 64, "vec_in_dim": None,
    "axes_dim": [64, 64], "byt5": True,
}  # fmt: skip


def _scales(tensors: Tensors) -> Tensors:
    """Return the tensors with the factors of the norms called ``scale``."""
    end, scale = "_norm.weight", "_norm.scale"
    return {
        f"{name.removesuffix(end)}{scale}" if name.endswith(end) else name: tensor
        for name, tensor in tensors.items()
    }


_Flux = "flux.model:Flux"
_Hunyuan = "hunyuan_video.model:HunyuanVideo"

FAMILIES = {
    "flux1": Family(_Flux, _FLUX, (1, 16, 8, 8), (1, 5, 64), pooled=64, published=_scales),
    "flux2": Family(_Flux, _FLUX2, (1, 128, 4, 4), (1, 5, 64), published=_scales),
    "longcat-image": Family(
        _Flux, _FLUX | {"vec_in_dim": None, "context_in_dim": 3584, "guidance_embed": False},
        (1, 16, 8, 8), (1, 5, 3584),
    ),
    "chroma": Family(
        "chroma.model:Chroma", _CHROMA, (1, 16, 8, 8), (1, 5, 64), published=_scales,
        sizes={"out_dim": 128, "hidden_dim": 128},
    ),
    "chroma-radiance": Family(
        "chroma_radiance.model:ChromaRadiance", _RADIANCE, (1, 3, 16, 16), (1, 5, 64),
        published=_scales,
        sizes={"out_dim": 128, "hidden_dim": 128, "nerf_hidden_size": 16,
               "nerf_embedder_dtype": None},
    ),
    "hunyuan-video": Family(
        _Hunyuan, _HUNYUAN, (1, 16, 1, 8, 8), (1, 5, 64), pooled=768, published=_scales
    ),
    "hunyuan-video-1.5": Family(
        _Hunyuan, _HUNYUAN_15, (1, 32, 1, 4, 4), (1, 5, 64), pooled=768
    ),
    "hunyuan-image-2.1": Family(
        _Hunyuan, _HUNYUAN_IMAGE, (1, 64, 4, 4), (1, 5, 64),
        extra={"conditioning_byt5small": (1, 4, 1472)},
    ),
}  # fmt: skip
