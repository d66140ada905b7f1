"""Families that a few names tell from all others.

The names are those that ComfyUI's ``model_detection.py`` looks for.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..layers import Inventory
from .architecture import Architecture, describe_blocks

#: The newer of the two ComfyUI versions that the key lists come from; the other is the oldest that
#: the pack supports.
NEWER = "0.33"


@dataclass(frozen=True)
class Sign:
    """A family, the layers that only it has, and whose first size is the width of the model."""

    id: str
    title: str
    layers: tuple[str, ...]
    width: str = ""
    since: str = ""

    def __call__(self, inventory: Inventory) -> Architecture | None:
        """Recognise the family."""
        if not all(name in inventory.layers for name in self.layers):
            return None
        shape = inventory.shape_of(self.width)
        parts = [f"width {shape[0]}"] if shape else []
        parts += filter(None, [describe_blocks(inventory, *_main_lists(inventory))])
        return Architecture(self.id, self.title, ", ".join(parts), since=self.since)


def _main_lists(inventory: Inventory) -> list[str]:
    """Return the lists of blocks that are not part of another module, in the order of the file."""
    lists = inventory.containers
    return [name for name in lists if name.count(".") <= 1][:3]


MINIMAX_MUSIC = Sign(
    "minimax-music3", "MiniMax Music 3",
    ("cond_layer_logits", "latent_conditioners.0",
     "diffusion_transformer.transformer.layers.0.self_attn.to_qkv"), since=NEWER,
)  # fmt: skip
MINIMAX_H3_VAE = Sign(
    "minimax-h3-vae", "the video VAE of MiniMax H3",
    ("decoder.transformer_blocks.0.scale1", "encoder.down.5.block.0.conv1"), since=NEWER,
)  # fmt: skip
SD3 = Sign(
    "sd3", "Stable Diffusion 3", ("joint_blocks.0.context_block.attn.qkv",), "x_embedder.proj"
)
CASCADE_C = Sign("stable-cascade", "Stable Cascade, stage C", ("clf.1", "clip_txt_mapper"))
CASCADE_B = Sign("stable-cascade", "Stable Cascade, stage B", ("clf.1", "clip_mapper"))
TRELLIS_SHAPE = Sign("trellis2", "Trellis 2", ("img2shape.t_embedder.mlp.0",), since=NEWER)
TRELLIS_TEXTURE = Sign("trellis2", "Trellis 2", ("shape2txt.t_embedder.mlp.0",), since=NEWER)
STABLE_AUDIO_3 = Sign(
    "stable-audio-3", "Stable Audio 3",
    ("transformer.rotary_pos_emb.inv_freq", "transformer.global_cond_embedder.0"),
    "to_timestep_embed.0",
)  # fmt: skip
STABLE_AUDIO = Sign(
    "stable-audio", "Stable Audio", ("transformer.rotary_pos_emb.inv_freq",), "to_timestep_embed.0"
)
AURAFLOW = Sign("auraflow", "AuraFlow", ("double_layers.0.attn.w1q",), "double_layers.0.attn.w1q")
HUNYUAN_DIT = Sign("hunyuan-dit", "Hunyuan DiT", ("mlp_t5.0",), "x_embedder.proj")
MOCHI = Sign("mochi", "Mochi", ("t5_yproj",), "x_embedder.proj")
MINIMAX_H3 = Sign(
    "minimax-h3", "MiniMax-H3", ("video_patch_proj", "audio_patch_proj"), "video_patch_proj",
    since=NEWER,
)  # fmt: skip
ACE_STEP = Sign("ace-step", "ACE-Step", ("genre_embedder",), "genre_embedder")
PIXART_ALPHA = Sign("pixart", "PixArt-alpha", ("t_block.1", "ar_embedder.mlp.0"), "x_embedder.proj")
PIXART_SIGMA = Sign("pixart", "PixArt-sigma", ("t_block.1",), "x_embedder.proj")
COSMOS = Sign(
    "cosmos", "Cosmos", ("blocks.block0.blocks.0.block.attn.to_q.0",),
    "blocks.block0.blocks.0.block.attn.to_q.0",
)  # fmt: skip
PID = Sign("pid", "PiD", ("lq_proj.latent_proj.0",))
PIXELDIT = Sign("pixeldit", "PixelDiT", ("core.pixel_embedder.proj",))
COGVIDEOX = Sign("cogvideox", "CogVideoX", ("blocks.0.norm1.linear",), "patch_embed.text_proj")
HUNYUAN_3D = Sign("hunyuan3d-2", "Hunyuan3D 2", ("latent_in",), "latent_in")
HUNYUAN_3D_21 = Sign(
    "hunyuan3d-2.1", "Hunyuan3D 2.1", ("t_embedder.mlp.2", "blocks.0.attn1.k_norm"), "x_embedder"
)
TRIPOSPLAT = Sign("triposplat", "TripoSplat", ("cam_out_layer", "repo_layers.0.final_map"))
HIDREAM_O1 = Sign("hidream-o1", "HiDream-O1", ("t_embedder1.mlp.0", "x_embedder.proj1"))
HIDREAM_I1 = Sign("hidream-i1", "HiDream-I1", ("caption_projection.0.linear",), "x_embedder.proj")
ANIMA = Sign(
    "anima", "Anima",
    ("blocks.0.mlp.layer1", "llm_adapter.blocks.0.cross_attn.q_proj"), "x_embedder.proj.1",
)  # fmt: skip
COSMOS_PREDICT2 = Sign(
    "cosmos-predict2", "Cosmos-Predict2", ("blocks.0.mlp.layer1",), "x_embedder.proj.1"
)
BOOGU = Sign(
    "boogu", "Boogu-Image",
    ("double_stream_layers.0.img_instruct_attn.processor.img_to_q",), "x_embedder",
)  # fmt: skip
OMNIGEN2 = Sign(
    "omnigen2", "OmniGen2", ("time_caption_embed.timestep_embedder.linear_1",), "x_embedder"
)
LENS = Sign(
    "lens", "Lens",
    ("transformer_blocks.0.attn.norm_added_q", "transformer_blocks.0.img_mlp.w1"), "img_in",
)  # fmt: skip
IDEOGRAM = Sign("ideogram4", "Ideogram 4", ("embed_image_indicator",), "input_proj")
KREA2 = Sign("krea2", "Krea 2", ("txtfusion.projector",), "first")
KANDINSKY = Sign(
    "kandinsky5", "Kandinsky 5", ("visual_transformer_blocks.0.cross_attention.key_norm",),
    "visual_embeddings.in_layer",
)  # fmt: skip
ACE_STEP_15 = Sign(
    "ace-step-1.5", "ACE-Step 1.5", ("encoder.lyric_encoder.layers.0.input_layernorm",),
    "decoder.layers.0.self_attn_norm",
)  # fmt: skip
RT_DETR = Sign("rt-detr", "RT-DETR", ("encoder.pan_blocks.1.cv4.conv",))
DEPTH_ANYTHING = Sign(
    "depth-anything3", "Depth Anything 3",
    ("backbone.embeddings.patch_embeddings.projection", "backbone.encoder.layer.0.norm1"),
    "backbone.embeddings.patch_embeddings.projection",
)  # fmt: skip
ERNIE = Sign("ernie-image", "ERNIE-Image", ("layers.0.mlp.linear_fc2",), "layers.0.mlp.linear_fc2")
SAM3 = Sign(
    "sam3", "SAM 3",
    ("detector.backbone.vision_backbone.trunk.blocks.0.attn.qkv",
     "detector.transformer.decoder.query_embed"),
)  # fmt: skip
JOYIMAGE = Sign(
    "joyimage", "JoyImage",
    ("double_blocks.0.attn.img_attn_qkv", "condition_embedder.time_embedder.linear_1", "img_in"),
    "img_in",
)  # fmt: skip
