"""Small Flux and Z-Image models with ComfyUI's names, and the same with diffusers' names.

Both are written side by side, by what the modules of the two are, not by a table of the package.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

Tensors = dict[str, torch.Tensor]
WIDTH, MLP = 64, 256


class Pair:
    """One random model under two kinds of names."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.ours: Tensors = {}
        self.theirs: Tensors = {}

    def put(self, ours: str, theirs: str, *shape: int, std: float = 1.0) -> None:
        """Add a tensor that both have."""
        tensor = (torch.randn(*shape, generator=self.generator) * std).bfloat16()
        self.ours[ours], self.theirs[theirs] = tensor, tensor.clone()

    def linear(self, ours: str, theirs: str, columns: int, rows: int, *, bias: bool = True) -> None:
        """Add a Linear that both have."""
        self.put(f"{ours}.weight", f"{theirs}.weight", rows, columns, std=0.05)
        if bias:
            self.put(f"{ours}.bias", f"{theirs}.bias", rows)

    def stacked(
        self,
        ours: str,
        theirs: Sequence[str],
        columns: int,
        rows: Sequence[int],
        *,
        bias: bool = True,
    ) -> None:
        """Add a Linear that is several ones in diffusers."""
        for leaf in ("weight", "bias")[: 1 + bias]:
            parts = []
            for name, count in zip(theirs, rows, strict=True):
                shape = (count, columns) if leaf == "weight" else (count,)
                part = (torch.randn(*shape, generator=self.generator) * 0.05).bfloat16()
                self.theirs[f"{name}.{leaf}"] = part
                parts.append(part)
            self.ours[f"{ours}.{leaf}"] = torch.cat(parts)

    def swapped(self, ours: str, theirs: str, columns: int, rows: int, *, bias: bool) -> None:
        """Add a Linear whose halves of rows diffusers has in the other order."""
        self.linear(ours, theirs, columns, rows, bias=bias)
        for leaf in ("weight", "bias")[: 1 + bias]:
            first, second = self.ours[f"{ours}.{leaf}"].chunk(2)
            self.theirs[f"{theirs}.{leaf}"] = torch.cat([second, first])


def flux(*, flux2: bool = False, guidance: bool = True) -> Pair:
    """Return two double and two single blocks of Flux.1 or Flux.2."""
    pair, bias = Pair(), not flux2
    pair.linear("img_in", "x_embedder", 16, WIDTH, bias=bias)
    pair.linear("txt_in", "context_embedder", 32, WIDTH, bias=bias)
    outer = "time_guidance_embed" if flux2 else "time_text_embed"
    embedders = [("time_in", "timestep"), ("guidance_in", "guidance"), ("vector_in", "text")]
    for ours, theirs in embedders[: 2 if flux2 else 3]:
        if ours != "guidance_in" or guidance:
            theirs = f"{outer}.{theirs}_embedder"
            pair.linear(f"{ours}.in_layer", f"{theirs}.linear_1", 32, WIDTH, bias=bias)
            pair.linear(f"{ours}.out_layer", f"{theirs}.linear_2", WIDTH, WIDTH, bias=bias)
    for number in range(2):
        _double(pair, f"double_blocks.{number}", f"transformer_blocks.{number}", flux2)
        _single(pair, f"single_blocks.{number}", f"single_transformer_blocks.{number}", flux2)
    if flux2:
        for name, count in (("double_stream_modulation_img", 6),
                            ("double_stream_modulation_txt", 6),
                            ("single_stream_modulation", 3)):  # fmt: skip
            pair.linear(f"{name}.lin", f"{name}.linear", WIDTH, count * WIDTH, bias=False)
    pair.linear("final_layer.linear", "proj_out", WIDTH, 16, bias=bias)
    last = "final_layer.adaLN_modulation.1"
    pair.swapped(last, "norm_out.linear", WIDTH, 2 * WIDTH, bias=bias)
    return pair


def _double(pair: Pair, ours: str, theirs: str, flux2: bool) -> None:
    bias = not flux2
    sides = (
        ("img", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k"), "norm1", "ff"),
        ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out",
         ("norm_added_q", "norm_added_k"), "norm1_context", "ff_context"),
    )  # fmt: skip
    for side, projections, out, norms, modulation, mlp in sides:
        keys = [f"{theirs}.attn.{name}" for name in projections]
        pair.stacked(f"{ours}.{side}_attn.qkv", keys, WIDTH, [WIDTH] * 3, bias=bias)
        pair.linear(f"{ours}.{side}_attn.proj", f"{theirs}.attn.{out}", WIDTH, WIDTH, bias=bias)
        for norm, name in zip(("query_norm", "key_norm"), norms, strict=True):
            pair.put(f"{ours}.{side}_attn.norm.{norm}.weight", f"{theirs}.attn.{name}.weight", 32)
        first, second = ("linear_in", "linear_out") if flux2 else ("net.0.proj", "net.2")
        hidden = 2 * MLP if flux2 else MLP
        pair.linear(f"{ours}.{side}_mlp.0", f"{theirs}.{mlp}.{first}", WIDTH, hidden, bias=bias)
        pair.linear(f"{ours}.{side}_mlp.2", f"{theirs}.{mlp}.{second}", MLP, WIDTH, bias=bias)
        if not flux2:
            pair.linear(f"{ours}.{side}_mod.lin", f"{theirs}.{modulation}.linear", WIDTH, 6 * WIDTH)


def _single(pair: Pair, ours: str, theirs: str, flux2: bool) -> None:
    for norm, name in (("query_norm", "norm_q"), ("key_norm", "norm_k")):
        pair.put(f"{ours}.norm.{norm}.weight", f"{theirs}.attn.{name}.weight", 32)
    if flux2:
        rows = 3 * WIDTH + 2 * MLP
        pair.linear(f"{ours}.linear1", f"{theirs}.attn.to_qkv_mlp_proj", WIDTH, rows, bias=False)
        pair.linear(f"{ours}.linear2", f"{theirs}.attn.to_out", WIDTH + MLP, WIDTH, bias=False)
        return
    keys = [f"{theirs}.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    pair.stacked(f"{ours}.linear1", keys, WIDTH, [WIDTH, WIDTH, WIDTH, MLP])
    pair.linear(f"{ours}.linear2", f"{theirs}.proj_out", WIDTH + MLP, WIDTH)
    pair.linear(f"{ours}.modulation.lin", f"{theirs}.norm.linear", WIDTH, 3 * WIDTH)


def z_image() -> Pair:
    """Return two layers and two blocks of each refiner of Z-Image."""
    pair = Pair()
    pair.linear("x_embedder", "all_x_embedder.2-1", 16, WIDTH)
    pair.put("cap_embedder.0.weight", "cap_embedder.0.weight", 32)
    pair.linear("cap_embedder.1", "cap_embedder.1", 32, WIDTH)
    pair.linear("t_embedder.mlp.0", "t_embedder.mlp.0", 32, WIDTH)
    pair.linear("t_embedder.mlp.2", "t_embedder.mlp.2", WIDTH, 32)
    pair.put("x_pad_token", "x_pad_token", 1, WIDTH)
    pair.put("cap_pad_token", "cap_pad_token", 1, WIDTH)
    for number in range(2):
        for part in ("layers", "noise_refiner", "context_refiner"):
            _z_block(pair, f"{part}.{number}", modulated=part != "context_refiner")
    pair.linear("final_layer.linear", "all_final_layer.2-1.linear", WIDTH, 16)
    last = "final_layer.adaLN_modulation.1"
    pair.linear(last, f"all_{last.replace('layer.', 'layer.2-1.')}", 32, WIDTH)
    return pair


def _z_block(pair: Pair, block: str, *, modulated: bool) -> None:
    attention = f"{block}.attention"
    keys = [f"{attention}.{name}" for name in ("to_q", "to_k", "to_v")]
    pair.stacked(f"{attention}.qkv", keys, WIDTH, [WIDTH] * 3, bias=False)
    pair.linear(f"{attention}.out", f"{attention}.to_out.0", WIDTH, WIDTH, bias=False)
    pair.put(f"{attention}.q_norm.weight", f"{attention}.norm_q.weight", 32)
    pair.put(f"{attention}.k_norm.weight", f"{attention}.norm_k.weight", 32)
    for norm in ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2"):
        pair.put(f"{block}.{norm}.weight", f"{block}.{norm}.weight", WIDTH)
    for name, columns, rows in (("w1", WIDTH, MLP), ("w2", MLP, WIDTH), ("w3", WIDTH, MLP)):
        layer = f"{block}.feed_forward.{name}"
        pair.linear(layer, layer, columns, rows, bias=False)
    if modulated:
        pair.linear(f"{block}.adaLN_modulation.0", f"{block}.adaLN_modulation.0", 32, 4 * WIDTH)


#: By name: a model with ComfyUI's names, and the same with those of diffusers.
PAIRS: dict[str, tuple[Tensors, Tensors]] = {
    name: (pair.ours, pair.theirs)
    for name, pair in {
        "Flux.1 dev": flux(),
        "Flux.1 schnell": flux(guidance=False),
        "Flux.2": flux(flux2=True),
        "Z-Image": z_image(),
    }.items()
}
