"""Recognise VAEs by the names that ComfyUI's ``VAE`` (comfy/sd.py) looks for.

ComfyUI builds them from layers that do not load quantized weights. The video VAE of MiniMax H3 is
the exception: its decoder is a transformer, whose layers are those of a quantized model.
"""

from __future__ import annotations

from collections.abc import Collection

#: Names that only one kind of VAE has, and the kind. All names of an entry must be there.
_SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("dec_in_proj.weight", "decoder.model.0.weight_g"), "MiniMax Music 3"),
    (("pre_block.attn.zero_k_bias",), "the audio of MiniMax H3"),
    (("decoder.mid.block_1.mix_factor",), "Stable Video Diffusion"),
    (("taesd_decoder.1.weight",), "TAESD"),
    (("vquantizer.codebook.weight",), "Stable Cascade"),
    (("backbone.1.0.block.0.1.num_batches_tracked",), "Stable Cascade"),
    (("encoder.backbone.1.0.block.0.1.num_batches_tracked",), "Stable Cascade"),
    (("blocks.11.num_batches_tracked",), "Stable Cascade"),
    (("shape_dec.blocks.1.16.to_subdiv.weight",), "Trellis 2"),
    (("txt_dec.blocks.3.4.conv2.weight",), "Trellis 2"),
    (("gs.base_offset_scale", "octree.out_proj.weight"), "TripoSplat"),
    (("decoder.up_blocks.2.upsamplers.0.upscale_conv.weight",), "SeedVR2"),
    (("student.dconv_encoder.proj_out.weight",), "Mage-Flow"),
    (("decoder.conv_in_x_t.weight",), "LTX"),
    (("decoder.up_blocks.0.res_blocks.0.conv1.conv.weight",), "LTX"),
    (("vocoder.resblocks.0.convs1.0.weight",), "the audio of LTX"),
    (("vocoder.vocoder.resblocks.0.convs1.0.weight",), "the audio of LTX"),
    (("decoder.up_blocks.0.resnets.0.norm1.weight",), "Stable Diffusion"),
    (("decoder.conv_in.weight",), "Stable Diffusion, Flux or a relative"),
    (("decoder.conv_in.conv.weight",), "Hunyuan Video or CogVideoX"),
    (("decoder.unpatcher3d.wavelets",), "Cosmos"),
    (("decoder.middle.0.residual.0.gamma",), "WAN or Qwen-Image"),
    (("decoder.conv1.weight",), "WAN or Qwen-Image"),
    (("decoder.layers.1.layers.0.beta",), "Stable Audio"),
    (("decoder.layers.3.transformers.0.pre_norm.alpha",), "Stable Audio 3"),
    (("blocks.2.blocks.3.stack.5.weight",), "Mochi"),
    (("decoder.blocks.2.blocks.3.stack.5.weight",), "Mochi"),
    (("layers.4.layers.1.attn_block.attn.qkv.weight",), "Mochi"),
    (("encoder.layers.4.layers.1.attn_block.attn.qkv.weight",), "Mochi"),
    (("geo_decoder.cross_attn_decoder.ln_1.bias",), "Hunyuan3D"),
    (("vocoder.backbone.channel_layers.0.0.bias",), "ACE-Step"),
    (("vocoder.activation_post.downsample.lowpass.filter",), "MMAudio"),
    (("decoder.22.bias",), "TAEHV"),
)
#: The names by which ComfyUI knows the one VAE that it loads quantized.
QUANTIZABLE = ("decoder.transformer_blocks.0.scale1", "encoder.down.5.block.0.conv1.weight")


def vae_without_quantization(names: Collection[str]) -> str | None:
    """Return of which model a file is the VAE that must stay as it is; None for other files."""
    if all(name in names for name in QUANTIZABLE):
        return None
    return next((of for signs, of in _SIGNS if all(name in names for name in signs)), None)
