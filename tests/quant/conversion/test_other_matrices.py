"""Matrices that are no weights of ComfyUI's Linear stay as they are, whatever is asked for.

ComfyUI decodes only what it loads into its own Linear. An expert gate in float8 would be used as it
is stored, hundreds of times off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_foundry.quant.conversion.convert import convert
from nvfp4_foundry.quant.errors import PlanError
from nvfp4_foundry.quant.planning import (
    Inventory,
    Plan,
    Recipe,
    automatic_recipe,
    get_preset,
    make_plan,
    parse_rule_lines,
    take_inventory,
)
from nvfp4_foundry.quant.sources import open_source
from nvfp4_foundry.quant.sources.state_dict import StateDictSource
from safetensors.torch import load_file, save_file

from tests.helpers import quantized_files

WIDTH = 256
FLOAT8 = "float8_e4m3fn"
Tensors = dict[str, torch.Tensor]


def randoms(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(s, generator=generator).bfloat16() for n, s in shapes.items()}


def hidream(blocks: int = 3) -> Tensors:
    """A HiDream-I1 of few layers: each block has a mixture of four experts, chosen by a gate."""
    shapes: dict[str, tuple[int, ...]] = {
        "caption_projection.0.linear.weight": (WIDTH, 64),
        "x_embedder.proj.weight": (WIDTH, 64),
        "x_embedder.proj.bias": (WIDTH,),
        "final_layer.linear.weight": (64, WIDTH),
        "final_layer.adaLN_modulation.1.weight": (2 * WIDTH, WIDTH),
    }
    for embedder in ("t_embedder.timestep_embedder", "p_embedder.pooled_embedder"):
        for number in (1, 2):
            shapes[f"{embedder}.linear_{number}.weight"] = (WIDTH, WIDTH)
    for block in (f"double_stream_blocks.{i}.block" for i in range(blocks)):
        for name in ("to_q", "to_k", "to_v", "to_out"):
            shapes[f"{block}.attn1.{name}.weight"] = (WIDTH, WIDTH)
        for expert in range(4):
            shapes[f"{block}.ff_i.experts.{expert}.w1.weight"] = (WIDTH, WIDTH)
        shapes[f"{block}.ff_i.gate.weight"] = (16, WIDTH)  # of a size that every format takes
    return randoms(shapes)


def unknown() -> Tensors:
    """A model that nobody knows, with a router and tables whose names say what they are."""
    shapes: dict[str, tuple[int, ...]] = {"positional_encoding.weight": (512, WIDTH)}
    for block in (f"stages.{i}" for i in range(3)):
        shapes[f"{block}.mixer.query.weight"] = (WIDTH, WIDTH)
        shapes[f"{block}.mixer.key.weight"] = (WIDTH, WIDTH)
        shapes[f"{block}.mlp.gate.weight"] = (4 * WIDTH, WIDTH)  # of a gated feed-forward layer
        shapes[f"{block}.moe.gate.weight"] = (32, WIDTH)
        shapes[f"{block}.moe.router.weight"] = (32, WIDTH)
        shapes[f"{block}.memory_tokens.weight"] = (64, WIDTH)
    return randoms(shapes)


MODELS = {
    "hidream": (hidream, r"ff_i\.gate"),
    "unknown": (unknown, r"moe\.(gate|router)|memory_tokens|positional_encoding"),
}
RECIPES = {
    "auto": automatic_recipe(),
    "smart": get_preset("smart").build({"min_size": 0}),
    "all in float8": get_preset("all").build({"format": FLOAT8}),
    "all in NVFP4": get_preset("all").build(),
    "everything in float8": Recipe.model_validate({"default": FLOAT8}),
    "a rule for all": Recipe(rules=parse_rule_lines(f"* = {FLOAT8}")),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    make, spared = MODELS[request.param]
    path = tmp_path / "model.safetensors"
    save_file(make(), path)
    yield path, spared


@pytest.mark.parametrize("recipe", RECIPES)
def test_they_keep_their_bits(model: tuple[Path, str], recipe: str, tmp_path: Path) -> None:
    path, spared = model
    target = tmp_path / "out.safetensors"
    with open_source(path) as source:
        plan = make_plan(RECIPES[recipe], take_inventory(source))
        convert(source, plan, target)
    before, after = load_file(path), load_file(target)
    kept = [name for name in before if re.search(spared, name)]
    assert len(kept) >= 3
    for name in kept:
        layer = name.removesuffix(".weight")
        assert torch.equal(before[name], after[name]), name
        assert not [n for n in after if n.startswith(f"{layer}.") and n != name], name
    quantized = {n.removesuffix(".comfy_quant") for n in after if n.endswith(".comfy_quant")}
    assert len(quantized) >= 9, "the Linear layers beside them are quantized"


def test_a_rule_for_a_gate_is_refused_by_name(tmp_path: Path) -> None:
    inventory = take_inventory(StateDictSource(hidream(), "hidream"))
    recipe = Recipe(rules=parse_rule_lines(f"*.gate = {FLOAT8}"))
    with pytest.raises(PlanError, match=r"3 of kind parameter, e\.g\. double_stream_blocks\.0\."):
        make_plan(recipe, inventory)


def test_a_rule_that_insists_is_refused_with_the_reason() -> None:
    inventory = take_inventory(StateDictSource(hidream(), "hidream"))
    rule = {"pattern": "*.gate", "kinds": ["parameter"], "format": FLOAT8}
    plan = make_plan(Recipe.model_validate({"rules": [rule], "default": FLOAT8}), inventory)
    gates = [la for la in plan.layers if la.name.endswith(".gate")]
    assert [la.format for la in gates] == ["keep"] * 3
    assert "its kind is parameter; ComfyUI loads float8_e4m3fn only for linear" in plan.warnings[0]


def plan_of(path: Path) -> tuple[Plan, Inventory]:
    with open_source(path) as source:
        inventory = take_inventory(source)
        return make_plan(Recipe.model_validate({"default": "keep"}), inventory), inventory


def quantized_by_others(model: Tensors, layers: tuple[str, ...], tmp_path: Path) -> Path:
    """A file in which another tool stored some layers as ComfyUI's float8."""
    chosen = {n: t for n, t in model.items() if n.removesuffix(".weight").endswith(layers)}
    path = tmp_path / "quantized.safetensors"
    save_file({**model, **stored_as_float8(chosen)}, path)
    return path


def stored_as_float8(weights: Tensors) -> Tensors:
    """Store weights with markers and scales."""
    found: Tensors = {}
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        scale = weight.float().abs().amax() / 448
        found[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
        found[f"{layer}.weight_scale"] = scale
        marker = bytearray(b'{"format": "float8_e4m3fn"}')
        found[f"{layer}.comfy_quant"] = torch.frombuffer(marker, dtype=torch.uint8).clone()
    return found


def test_what_others_quantized_is_decoded(tmp_path: Path) -> None:
    """A gate that another tool stored as float8 is taken for noise by ComfyUI; ours is right."""
    model = hidream()
    path = quantized_by_others(model, (".gate", ".to_q"), tmp_path)
    target = tmp_path / "out.safetensors"
    with open_source(path) as source:
        plan = make_plan(Recipe.model_validate({"default": "keep"}), take_inventory(source))
        convert(source, plan, target)
    after = load_file(target)
    gates = [name for name in model if name.endswith(".gate.weight")]
    for name in gates:
        layer = name.removesuffix(".weight")
        assert after[name].dtype == torch.bfloat16 and f"{layer}.comfy_quant" not in after
        error = (after[name].float() - model[name].float()).norm() / model[name].float().norm()
        assert error < 0.04, "float8's own rounding"
    assert after["double_stream_blocks.0.block.attn1.to_q.comfy_quant"].numel() > 0


def test_a_packed_shape_that_detection_reads_is_decoded(tmp_path: Path) -> None:
    """CogVideoX's first modulation tells ComfyUI the width; an NVFP4 file of it does not load."""
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.text_proj.weight": (WIDTH, 64),
        "patch_embed.proj.weight": (WIDTH, 16, 2, 2),
        "norm_final.weight": (WIDTH,),
        "norm_out.norm.weight": (WIDTH,),
        "norm_out.linear.weight": (2 * WIDTH, WIDTH),
        "proj_out.weight": (64, WIDTH),
        "time_embedding_linear_1.weight": (512, WIDTH),
        "time_embedding_linear_2.weight": (512, 512),
    }
    for block in (f"blocks.{i}" for i in range(3)):
        shapes[f"{block}.norm1.linear.weight"] = (6 * WIDTH, WIDTH)
        shapes[f"{block}.attn1.to_q.weight"] = (WIDTH, WIDTH)
    path = tmp_path / "nvfp4.safetensors"
    save_file(quantized_files.comfyui_nvfp4(randoms(shapes)), path)
    plan, inventory = plan_of(path)
    formats = {la.name: la.format for la in plan.layers}
    assert plan.architecture.id == "cogvideox"
    assert formats["blocks.0.norm1.linear"] == "keep"
    assert formats["blocks.1.norm1.linear"] == formats["blocks.0.attn1.to_q"] == "nvfp4"
    assert inventory.layers["blocks.0.norm1.linear"].kind == "linear"


def test_a_models_own_modules_decide() -> None:
    """A MODEL in the graph knows its Linear layers; names do not matter then."""

    class KnowsItsLayers(StateDictSource):
        linear_layers = frozenset({"stages.0.moe.router", "stages.0.mixer.key"})

    inventory: Any = take_inventory(KnowsItsLayers(unknown(), "MODEL"))
    linears = {layer.name for layer in inventory.of_kind("linear")}
    assert linears == KnowsItsLayers.linear_layers
    assert inventory.layers["stages.0.mixer.query"].kind == "parameter"


def test_a_layer_that_no_published_model_has() -> None:
    """A finetune of a known family may add layers: those are judged by their names."""
    model = hidream() | randoms(
        {
            "double_stream_blocks.0.block.extra.weight": (WIDTH, WIDTH),
            "double_stream_blocks.0.block.extra_router.weight": (16, WIDTH),
        }
    )
    layers = take_inventory(StateDictSource(model, "hidream")).layers
    assert layers["double_stream_blocks.0.block.extra"].kind == "linear"
    assert layers["double_stream_blocks.0.block.extra_router"].kind == "parameter"
