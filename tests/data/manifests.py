"""Key lists of real models, built from their dimensions: tensor name -> shape.

`MODELS` holds the models the presets are written for, with every tensor of the published files.
`FAMILIES` holds shortened models of other families: all the kinds of layers, few blocks.
"""

from __future__ import annotations

from collections.abc import Callable

Manifest = dict[str, tuple[int, ...]]


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Manifest:
    weight: Manifest = {f"{name}.weight": (outputs, inputs)}
    return {**weight, f"{name}.bias": (outputs,)} if bias else weight


def norm(name: str, width: int, *, bias: bool = False) -> Manifest:
    weight: Manifest = {f"{name}.weight": (width,)}
    return {**weight, f"{name}.bias": (width,)} if bias else weight


def conv(name: str, *shape: int) -> Manifest:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def wan(width: int, ffn: int, blocks: int, inputs: int, outputs: int, text: int = 4096) -> Manifest:
    """WAN text- and image-to-video. Patches are 1x2x2, times have 256 frequencies."""
    found: Manifest = {
        **conv("patch_embedding", width, inputs, 1, 2, 2),
        **linear("text_embedding.0", text, width),
        **linear("text_embedding.2", width, width),
        **linear("time_embedding.0", 256, width),
        **linear("time_embedding.2", width, width),
        **linear("time_projection.1", width, 6 * width),
        "head.modulation": (1, 2, width),
        **linear("head.head", width, 4 * outputs),
    }
    for block in (f"blocks.{i}" for i in range(blocks)):
        found[f"{block}.modulation"] = (1, 6, width)
        found |= norm(f"{block}.norm3", width, bias=True)
        for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
            for projection in "qkvo":
                found |= linear(f"{attention}.{projection}", width, width)
            found |= norm(f"{attention}.norm_q", width) | norm(f"{attention}.norm_k", width)
        found |= linear(f"{block}.ffn.0", width, ffn) | linear(f"{block}.ffn.2", ffn, width)
    return found


def wan_of_diffusers(
    width: int, ffn: int, blocks: int, inputs: int, outputs: int, text: int = 4096
) -> Manifest:
    """The same model as `wan` makes, as the transformer folders of diffusers name it."""
    embedder = "condition_embedder"
    found: Manifest = {
        "scale_shift_table": (1, 2, width),
        **conv("patch_embedding", width, inputs, 1, 2, 2),
        **linear(f"{embedder}.time_embedder.linear_1", 256, width),
        **linear(f"{embedder}.time_embedder.linear_2", width, width),
        **linear(f"{embedder}.time_proj", width, 6 * width),
        **linear(f"{embedder}.text_embedder.linear_1", text, width),
        **linear(f"{embedder}.text_embedder.linear_2", width, width),
        **linear("proj_out", width, 4 * outputs),
    }
    for block in (f"blocks.{i}" for i in range(blocks)):
        found[f"{block}.scale_shift_table"] = (1, 6, width)
        found |= norm(f"{block}.norm2", width, bias=True)
        for attention in (f"{block}.attn1", f"{block}.attn2"):
            for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                found |= linear(f"{attention}.{projection}", width, width)
            found |= norm(f"{attention}.norm_q", width) | norm(f"{attention}.norm_k", width)
        found |= linear(f"{block}.ffn.net.0.proj", width, ffn)
        found |= linear(f"{block}.ffn.net.2", ffn, width)
    return found


def qwen_image(blocks: int = 60, width: int = 3072, *, edit_2511: bool = False) -> Manifest:
    """Qwen-Image; the 2511 edit model is marked by an empty tensor."""
    found: Manifest = {"__index_timestep_zero__": (0,)} if edit_2511 else {}
    found |= linear("time_text_embed.timestep_embedder.linear_1", 256, width)
    found |= linear("time_text_embed.timestep_embedder.linear_2", width, width)
    found |= norm("txt_norm", 3584)
    found |= linear("img_in", 64, width) | linear("txt_in", 3584, width)
    found |= linear("norm_out.linear", width, 2 * width) | linear("proj_out", width, 64)
    projections = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")
    for block in (f"transformer_blocks.{i}" for i in range(blocks)):
        for side in ("img", "txt"):
            found |= linear(f"{block}.{side}_mod.1", width, 6 * width)
            found |= linear(f"{block}.{side}_mlp.net.0.proj", width, 4 * width)
            found |= linear(f"{block}.{side}_mlp.net.2", 4 * width, width)
        for projection in (*projections, "to_out.0", "to_add_out"):
            found |= linear(f"{block}.attn.{projection}", width, width)
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            found |= norm(f"{block}.attn.{name}", 128)
    return found


def _double_and_single_blocks(width: int, modulation: str) -> Manifest:
    """Blocks of the Flux family: 3 double and 4 single ones."""
    found: Manifest = {}
    for block in (f"double_blocks.{i}" for i in range(3)):
        for side in (f"{block}.img", f"{block}.txt"):
            found |= linear(f"{side}_mod.{modulation}", width, 6 * width)
            found |= linear(f"{side}_attn.qkv", width, 3 * width)
            found |= linear(f"{side}_attn.proj", width, width)
            found |= {f"{side}_attn.norm.query_norm.scale": (width // 4,)}
            found |= linear(f"{side}_mlp.0", width, 4 * width)
            found |= linear(f"{side}_mlp.2", 4 * width, width)
    for block in (f"single_blocks.{i}" for i in range(4)):
        found |= linear(f"{block}.modulation.{modulation}", width, 3 * width)
        found |= linear(f"{block}.linear1", width, 7 * width)
        found |= linear(f"{block}.linear2", 5 * width, width)
        found |= {f"{block}.norm.key_norm.scale": (width // 4,)}
    return found


def flux(width: int = 256) -> Manifest:
    found = linear("img_in", 64, width) | linear("txt_in", 512, width)
    for name in ("time_in", "vector_in", "guidance_in"):
        found |= linear(f"{name}.in_layer", 256, width) | linear(f"{name}.out_layer", width, width)
    found |= linear("final_layer.linear", width, 64)
    found |= linear("final_layer.adaLN_modulation.1", width, 2 * width)
    return found | _double_and_single_blocks(width, "lin")


def hunyuan_video(width: int = 256) -> Manifest:
    """As Flux, but the text input is a small transformer of its own."""
    found = conv("img_in.proj", width, 16, 1, 2, 2)
    for name in ("time_in", "vector_in", "guidance_in"):
        found |= linear(f"{name}.in_layer", 256, width) | linear(f"{name}.out_layer", width, width)
    found |= linear("txt_in.input_embedder", 512, width)
    found |= linear("txt_in.t_embedder.in_layer", 256, width)
    found |= linear("txt_in.c_embedder.in_layer", 512, width)
    for block in (f"txt_in.individual_token_refiner.blocks.{i}" for i in range(2)):
        found |= linear(f"{block}.self_attn.qkv", width, 3 * width)
        found |= linear(f"{block}.self_attn.proj", width, width)
        found |= linear(f"{block}.mlp.0", width, 4 * width)
        found |= linear(f"{block}.mlp.2", 4 * width, width)
        found |= linear(f"{block}.adaLN_modulation.1", width, 2 * width)
        found |= norm(f"{block}.norm1", width, bias=True)
    found |= linear("final_layer.linear", width, 64)
    found |= linear("final_layer.adaLN_modulation.1", width, 2 * width)
    return found | _double_and_single_blocks(width, "lin")


def chroma(width: int = 256) -> Manifest:
    """Flux whose modulation comes from one network beside the blocks."""
    found = linear("img_in", 64, width) | linear("txt_in", 512, width)
    found |= linear("final_layer.linear", width, 64)
    guidance = "distilled_guidance_layer"
    found |= linear(f"{guidance}.in_proj", 64, width) | linear(f"{guidance}.out_proj", width, width)
    for i in range(5):
        found |= linear(f"{guidance}.layers.{i}.in_layer", width, width)
        found |= linear(f"{guidance}.layers.{i}.out_layer", width, width)
        found |= {f"{guidance}.norms.{i}.scale": (width,)}
    blocks = _double_and_single_blocks(width, "lin")
    return found | {n: s for n, s in blocks.items() if "mod" not in n}


def lumina(width: int = 256) -> Manifest:
    """Lumina 2 and Z-Image."""
    found = linear("x_embedder", 64, width) | norm("cap_embedder.0", 512)
    found |= linear("cap_embedder.1", 512, width)
    found |= linear("t_embedder.mlp.0", 256, width) | linear("t_embedder.mlp.2", width, width)
    found |= linear("final_layer.linear", width, 64)
    found |= linear("final_layer.adaLN_modulation.1", width, width)
    found |= {"cap_pad_token": (1, width), "x_pad_token": (1, width)}
    for container, count in (("layers", 4), ("context_refiner", 2), ("noise_refiner", 2)):
        for block in (f"{container}.{i}" for i in range(count)):
            found |= linear(f"{block}.attention.qkv", width, 3 * width, bias=False)
            found |= linear(f"{block}.attention.out", width, width, bias=False)
            for name in ("w1", "w3"):
                found |= linear(f"{block}.feed_forward.{name}", width, 4 * width, bias=False)
            found |= linear(f"{block}.feed_forward.w2", 4 * width, width, bias=False)
            found |= norm(f"{block}.attention_norm1", width) | norm(f"{block}.ffn_norm1", width)
            if container != "context_refiner":
                found |= linear(f"{block}.adaLN_modulation.1", width, 4 * width)
    return found


def ltx(width: int = 256) -> Manifest:
    """LTX-Video with the gates and the connector of LTX-2."""
    found = linear("patchify_proj", 128, width) | linear("proj_out", width, 128)
    found |= linear("adaln_single.linear", width, 6 * width)
    embedder = "adaln_single.emb.timestep_embedder"
    found |= linear(f"{embedder}.linear_1", 256, width)
    found |= linear(f"{embedder}.linear_2", width, width)
    found |= linear("caption_projection.linear_1", 512, width)
    found |= linear("caption_projection.linear_2", width, width)
    found |= {"scale_shift_table": (2, width)}
    lists = ("transformer_blocks", "video_embeddings_connector.transformer_1d_blocks")
    for block in (f"{container}.{i}" for container in lists for i in range(4)):
        for attention in (f"{block}.attn1", f"{block}.attn2"):
            for projection in ("to_q", "to_k", "to_v", "to_out.0"):
                found |= linear(f"{attention}.{projection}", width, width)
            found |= linear(f"{attention}.to_gate_logits", width, 32)
            found |= norm(f"{attention}.q_norm", width)
        found |= linear(f"{block}.ff.net.0.proj", width, 4 * width)
        found |= linear(f"{block}.ff.net.2", 4 * width, width)
        found |= {f"{block}.scale_shift_table": (6, width)}
    return found


def diffusers_mmdit(width: int = 256) -> Manifest:
    """Names of diffusers' SD3 and Flux: modulation is the Linear of an adaptive norm."""
    found = linear("context_embedder", 512, width) | linear("proj_out", width, 64)
    found |= linear("norm_out.linear", width, 2 * width)
    found |= linear("time_text_embed.timestep_embedder.linear_1", 256, width)
    for block in (f"transformer_blocks.{i}" for i in range(4)):
        found |= linear(f"{block}.norm1.linear", width, 6 * width)
        found |= linear(f"{block}.norm1_context.linear", width, 6 * width)
        for projection in ("to_q", "to_k", "to_v", "to_out.0"):
            found |= linear(f"{block}.attn.{projection}", width, width)
        found |= linear(f"{block}.ff.net.0.proj", width, 4 * width)
        found |= linear(f"{block}.ff.net.2", 4 * width, width)
    return found


def sdxl(width: int = 128) -> Manifest:
    """SDXL's UNet: blocks of one list differ, transformers sit inside some of them."""
    found = linear("time_embed.0", width, 4 * width) | linear("time_embed.2", 4 * width, 4 * width)
    found |= linear("label_emb.0.0", 256, 4 * width) | linear("label_emb.0.2", 512, 4 * width)
    found |= conv("input_blocks.0.0", width, 4, 3, 3)
    found |= conv("input_blocks.2.0.op", width, width, 3, 3)
    found |= norm("out.0", width, bias=True) | conv("out.2", 4, width, 3, 3)
    residual = ("input_blocks.1.0", "input_blocks.3.0", "input_blocks.4.0", "middle_block.0")
    residual += ("middle_block.2", "output_blocks.0.0", "output_blocks.1.0", "output_blocks.2.0")
    for block in residual:
        found |= norm(f"{block}.in_layers.0", width, bias=True)
        found |= conv(f"{block}.in_layers.2", width, width, 3, 3)
        found |= linear(f"{block}.emb_layers.1", 4 * width, width)
        found |= conv(f"{block}.out_layers.3", width, width, 3, 3)
    for place in ("input_blocks.4.1", "middle_block.1", "output_blocks.0.1"):
        found |= linear(f"{place}.proj_in", width, width)
        found |= linear(f"{place}.proj_out", width, width)
        for block in (f"{place}.transformer_blocks.{i}" for i in range(4)):
            for attention in (f"{block}.attn1", f"{block}.attn2"):
                for projection in ("to_q", "to_k", "to_v"):
                    found |= linear(f"{attention}.{projection}", 4 * width, width, bias=False)
                found |= linear(f"{attention}.to_out.0", 4 * width, width)
            found |= linear(f"{block}.ff.net.0.proj", width, 8 * width)
            found |= linear(f"{block}.ff.net.2", 4 * width, width)
            found |= norm(f"{block}.norm1", width, bias=True)
    return found


def t5_encoder(width: int = 256) -> Manifest:
    found: Manifest = {"shared.weight": (1024, width), **norm("encoder.final_layer_norm", width)}
    for i in range(4):
        block = f"encoder.block.{i}.layer"
        for projection in "qkvo":
            found |= linear(f"{block}.0.SelfAttention.{projection}", width, width, bias=False)
        found |= {f"{block}.0.SelfAttention.relative_attention_bias.weight": (32, 64)}
        found |= norm(f"{block}.0.layer_norm", width) | norm(f"{block}.1.layer_norm", width)
        found |= linear(f"{block}.1.DenseReluDense.wi_0", width, 4 * width, bias=False)
        found |= linear(f"{block}.1.DenseReluDense.wo", 4 * width, width, bias=False)
    return found


MODELS: dict[str, Callable[[], Manifest]] = {
    "wan2.2-ti2v-5b": lambda: wan(3072, 14336, 30, 48, 48),
    "wan2.2-t2v-14b": lambda: wan(5120, 13824, 40, 16, 16),
    "wan2.2-i2v-14b": lambda: wan(5120, 13824, 40, 36, 16),
    "qwen-image-2512": qwen_image,
    "qwen-image-edit-2511": lambda: qwen_image(edit_2511=True),
}

FAMILIES: dict[str, Callable[[], Manifest]] = {
    "flux": flux,
    "hunyuan-video": hunyuan_video,
    "chroma": chroma,
    "lumina": lumina,
    "ltx": ltx,
    "diffusers-mmdit": diffusers_mmdit,
    "sdxl": sdxl,
    "t5": t5_encoder,
}
