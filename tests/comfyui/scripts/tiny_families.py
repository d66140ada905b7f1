"""Small random models whose architecture stock ComfyUI reads off their shapes.

Each is built by ComfyUI's own code, so its keys are those of the real model; see `FAMILIES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.ldm.flux.model
import comfy.ldm.hunyuan_video.model
import comfy.ldm.lightricks.av_model
import comfy.ldm.lightricks.model
import comfy.ldm.modules.diffusionmodules.openaimodel as unet
import comfy.ldm.wan.model
import comfy.nested_tensor
import comfy.ops
import torch

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
_LTXV = {"num_layers": 3, "attention_head_dim": 8, "cross_attention_dim": 256}
# What the file's own metadata says wins over what ComfyUI reads off the shapes.
_LTX2 = _LTXV | {
    "attention_head_dim": 8, "cross_attention_dim": 256, "audio_attention_head_dim": 4,
    "audio_cross_attention_dim": 128, "caption_channels": 128, "connector_attention_head_dim": 16,
    "connector_num_attention_heads": 8, "connector_num_layers": 1, "apply_gated_attention": True,
}  # fmt: skip
_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "use_spatial_transformer": True, "legacy": False,
}  # fmt: skip
_SD15 = _UNET | {
    "num_res_blocks": [2], "channel_mult": [1], "transformer_depth": [1, 1],
    "transformer_depth_middle": 1, "transformer_depth_output": [1, 1, 1],
    "use_linear_in_transformer": False, "context_dim": 768, "num_heads": 8,
}  # fmt: skip
# The depths are those of Segmind Vega, the smallest SDXL; ComfyUI does not check the widths.
_SDXL = _UNET | {
    "num_classes": "sequential", "adm_in_channels": 2816, "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 1, 1], "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": -1, "transformer_depth_output": [0] * 9,
    "use_linear_in_transformer": True, "context_dim": 2048, "num_head_channels": 64,
}  # fmt: skip
_WAN = {
    "model_type": "t2v", "patch_size": (1, 2, 2), "dim": 128, "ffn_dim": 256, "num_heads": 1,
    "num_layers": 3, "in_dim": 48, "out_dim": 48,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A tiny model, and what it samples from.

    ``latent`` and ``context`` are shapes (a list of shapes: a nested latent); ``pooled`` the width
    of the pooled text, or 0; ``masked`` whether the text comes with a mask.
    """

    build: Callable[..., torch.nn.Module]
    config: Mapping[str, Any]
    latent: tuple[Any, ...]
    context: tuple[int, ...]
    pooled: int = 0
    masked: bool = False
    settings: Mapping[str, int | str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return random weights that neither vanish nor explode; the same every time."""
        model = self.build(
            **self.config, device="meta", dtype=torch.float32, operations=comfy.ops.manual_cast
        )
        generator = torch.Generator().manual_seed(1)
        found = {}
        for name, meta in model.state_dict().items():
            fan_in = meta[0].numel() if meta.dim() > 1 else 1
            values = torch.randn(meta.shape, generator=generator)
            is_norm = meta.dim() == 1 and name.endswith("weight")
            found[name] = 1 + 0.1 * values if is_norm else values / fan_in**0.5 * 0.7
        return found

    def empty_latent(self) -> Any:
        """Return zeros of the latent's shape."""
        if isinstance(self.latent[0], int):
            return torch.zeros(self.latent)
        return comfy.nested_tensor.NestedTensor([torch.zeros(shape) for shape in self.latent])

    def conditioning(self) -> list[Any]:
        """Return random conditioning, the same every time."""
        generator = torch.Generator().manual_seed(2)
        extra: dict[str, Any] = {"guidance": 3.5}
        if self.masked:
            extra["attention_mask"] = torch.ones(self.context[:2])
        if self.pooled:
            extra["pooled_output"] = torch.randn(1, self.pooled, generator=generator)
        return [[torch.randn(self.context, generator=generator), extra]]


_Flux = comfy.ldm.flux.model.Flux
_Hunyuan = comfy.ldm.hunyuan_video.model.HunyuanVideo
_ONE_EDGE = {"edge_blocks": 1}

FAMILIES = {
    "flux1": Family(_Flux, _FLUX, (1, 16, 8, 8), (1, 5, 64), pooled=64),
    "flux2": Family(_Flux, _FLUX2, (1, 128, 4, 4), (1, 5, 64)),
    "hunyuan-video": Family(
        _Hunyuan, _HUNYUAN, (1, 16, 1, 8, 8), (1, 5, 64), pooled=768
    ),
    "hunyuan-video-1.5": Family(
        _Hunyuan, _HUNYUAN_15, (1, 32, 1, 4, 4), (1, 5, 64),
        pooled=768, settings=_ONE_EDGE,
    ),
    "ltxv": Family(
        comfy.ldm.lightricks.model.LTXVModel, _LTXV, (1, 128, 2, 4, 4), (1, 5, 4096),
        masked=True, settings=_ONE_EDGE,
    ),
    "ltx-2": Family(
        comfy.ldm.lightricks.av_model.LTXAVModel, _LTX2,
        ((1, 128, 2, 4, 4), (1, 8, 4, 16)), (1, 8, 128), settings=_ONE_EDGE,
        metadata={"config": json.dumps({"transformer": _LTX2})},
    ),
    "sd1.5": Family(unet.UNetModel, _SD15, (1, 4, 8, 8), (1, 5, 768)),
    "sdxl": Family(unet.UNetModel, _SDXL, (1, 4, 8, 8), (1, 5, 2048), pooled=1280),
    "wan2.2-ti2v": Family(
        comfy.ldm.wan.model.WanModel, _WAN, (1, 48, 1, 4, 4), (1, 5, 4096),
        settings=_ONE_EDGE,
    ),
}  # fmt: skip
