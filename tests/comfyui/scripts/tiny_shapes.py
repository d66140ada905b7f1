"""Models of shapes and of pixels, and Stable Cascade."""

from __future__ import annotations

import torch
from tiny_family import Family, Tensors

_HUNYUAN_3D = {
    "in_channels": 64, "context_in_dim": 64, "hidden_size": 128, "mlp_ratio": 4.0, "depth": 3,
    "depth_single_blocks": 3, "qkv_bias": True, "guidance_embed": False,
}  # fmt: skip
_HUNYUAN_3D_21 = {
    "in_channels": 64, "context_dim": 1024, "hidden_size": 128, "depth": 3, "qkv_bias": False,
    "guidance_cond_proj_dim": None,
}  # fmt: skip
_PIXELDIT = {
    "num_groups": 2, "hidden_size": 128, "pixel_attn_hidden_size": 128, "pixel_num_groups": 2,
    "patch_depth": 3, "pixel_depth": 3, "txt_embed_dim": 64, "txt_max_length": 8,
}  # fmt: skip
_CASCADE_C = {
    "c_cond": 1536, "c_hidden": [128, 128], "nhead": [2, 2], "blocks": [[1, 2], [2, 1]],
    "c_clip_text": 64,
}  # fmt: skip


def _pixel_files(tensors: Tensors) -> Tensors:
    """Return the tensors of PixelDiT's file: below ``core``, one modulation a pixel block."""
    found = {}
    for name, tensor in tensors.items():
        if ".adaLN_modulation_mlp." in name:
            continue
        if ".adaLN_modulation_msa." in name:
            other = tensors[name.replace("_msa.", "_mlp.")]
            # Of each pixel, three vectors for the attention and three for the feed-forward.
            parts = [part.view(256, 3, 16, *part.shape[1:]) for part in (tensor, other)]
            fused = torch.cat(parts, dim=1).reshape(-1, *tensor.shape[1:])
            found[f"core.{name.replace('_msa.', '.0.')}"] = fused
        else:
            found[f"core.{name}"] = tensor
    return found


def _cascade_files(tensors: Tensors) -> Tensors:
    """Return the tensors of Stable Cascade's file, with one projection for q, k and v."""
    found = {}
    for name, tensor in tensors.items():
        start, middle, kind = name.rpartition(".to_q.")
        if middle:
            parts = [tensors[f"{start}.to_{each}.{kind}"] for each in "qkv"]
            found[f"{start}.in_proj_{kind}"] = torch.cat(parts)
        elif ".to_k." not in name and ".to_v." not in name:
            found[name] = tensor
    return found


FAMILIES = {
    "hunyuan3d-2": Family(
        "hunyuan3d.model:Hunyuan3Dv2", _HUNYUAN_3D, (1, 64, 16), (1, 5, 64), sizes={"num_heads": 2}
    ),
    "hunyuan3d-2.1": Family(
        "hunyuan3dv2_1.hunyuandit:HunYuanDiTPlain", _HUNYUAN_3D_21, (1, 64, 16), (1, 5, 1024),
        sizes={"num_heads": 2},
    ),
    "triposplat": Family(
        "triposplat.model:LatentSeqMMFlowModel", {}, ((1, 16, 16), (1, 1, 5)), (1, 5, 64),
        sizes={"q_token_length": 16, "model_channels": 128, "cond_channels": 64, "num_blocks": 3,
               "num_refiner_blocks": 1},
    ),
    "pixeldit": Family(
        "pixeldit.model:PixDiT_T2I", {}, (1, 3, 32, 32), (1, 5, 64),
        sizes=_PIXELDIT, published=_pixel_files, prefix="core.",
    ),
    "stable-cascade": Family(
        "cascade.stage_c:StageC", {"stable_cascade_stage": "c"}, (1, 16, 8, 8), (1, 5, 64),
        pooled=1280, sizes=_CASCADE_C, published=_cascade_files,
    ),
}  # fmt: skip
