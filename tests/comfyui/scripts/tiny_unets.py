"""The U-Nets of Stable Diffusion."""

from __future__ import annotations

from tiny_family import Family

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

_UNetModel = "modules.diffusionmodules.openaimodel:UNetModel"

FAMILIES = {
    "sd1.5": Family(_UNetModel, _SD15, (1, 4, 8, 8), (1, 5, 768)),
    "sdxl": Family(_UNetModel, _SDXL, (1, 4, 8, 8), (1, 5, 2048), pooled=1280),
}
