"""Layers, their kinds and their place among the blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from nvfp4_foundry.quant.planning import Inventory, inventory_of
from nvfp4_foundry.quant.sources import TensorInfo

InventoryNamed = Callable[[str], Inventory]


def infos(**shapes: tuple[int, ...]) -> list[TensorInfo]:
    return [TensorInfo(n.replace("__", "."), s, torch.float16) for n, s in shapes.items()]


def test_wan_layers(inventory_named: InventoryNamed) -> None:
    inventory = inventory_named("wan2.2-ti2v-5b")
    kinds = Counter(layer.kind for layer in inventory.layers.values())
    assert kinds == {"linear": 30 * 10 + 6, "conv": 1, "norm": 30 * 5, "parameter": 31}
    layer = inventory.layers["blocks.7.ffn.2"]
    assert layer.shape == (3072, 14336)
    assert [info.name for info in layer.companions] == ["blocks.7.ffn.2.bias"]
    assert layer.nbytes == 2 * (3072 * 14336 + 3072)
    assert layer.block is not None
    assert (layer.block.container, layer.block.index, layer.block.count) == ("blocks", 7, 30)
    assert inventory.layers["blocks.7.modulation"].block == layer.block
    assert inventory.layers["blocks.7.norm3"].block == layer.block
    for outside in ("head.head", "text_embedding.0", "time_projection.1", "patch_embedding"):
        assert inventory.layers[outside].block is None
    assert inventory.containers == {"blocks": 30}
    assert inventory.shape_of("nothing") is None


def test_every_tensor_belongs_to_exactly_one_layer(inventory_named: InventoryNamed) -> None:
    inventory = inventory_named("qwen-image-edit-2511")
    tensors = [
        info.name
        for layer in inventory.layers.values()
        for info in (layer.tensor, *layer.companions)
    ]
    assert len(tensors) == len(set(tensors)) == 1934


@pytest.mark.parametrize(
    ("family", "containers"),
    [
        ("sdxl", {
            **{f"input_blocks.{i}.1.transformer_blocks": 2 if i < 7 else 10 for i in (4, 5, 7, 8)},
            "middle_block.1.transformer_blocks": 10,
            **{f"output_blocks.{i}.1.transformer_blocks": 10 if i < 3 else 2 for i in range(6)},
        }),
        ("ltx-2", {
            "transformer_blocks": 48,
            "video_embeddings_connector.transformer_1d_blocks": 2,
            "audio_embeddings_connector.transformer_1d_blocks": 2,
        }),
        ("t5-xxl", {"encoder.block": 24}),
        ("qwen2.5-vl-7b", {"model.layers": 28, "visual.blocks": 32}),
        ("chroma", {
            "double_blocks": 19, "single_blocks": 38, "distilled_guidance_layer.layers": 5,
        }),
        ("qwen-image-2512", {"transformer_blocks": 60}),
    ],
)  # fmt: skip
def test_containers(
    inventory_named: InventoryNamed, family: str, containers: dict[str, int]
) -> None:
    assert inventory_named(family).containers == containers


def test_sequential_children_are_no_blocks() -> None:
    """A list whose entries hold numbered layers (SDXL's label_emb) is a Sequential."""
    inventory = inventory_of(
        infos(label_emb__0__0__weight=(64, 64), label_emb__0__2__weight=(64, 64))
    )
    assert inventory.containers == {}


def test_indices_must_be_consecutive_from_zero() -> None:
    names = [f"blocks.{i}.{p}.weight" for i in (1, 2) for p in "qk"]
    assert inventory_of(TensorInfo(n, (8, 8), torch.float16) for n in names).containers == {}


def test_kinds() -> None:
    inventory = inventory_of(
        [
            *infos(a__weight=(4, 4), b__weight=(4,), c__weight=(4, 4, 1)),
            *infos(token_embedding__weight=(9, 4), cond_type_embedding__weight=(3, 4)),
            *infos(text_embedding__0__weight=(4, 4), d__scale=(4,), lonely__bias=(4,)),
            TensorInfo("position_ids", (4,), torch.int64),
            TensorInfo("e.weight", (4, 4), torch.int8),
        ]
    )  # fmt: skip
    assert {name: layer.kind for name, layer in inventory.layers.items()} == {
        "a": "linear",
        "b": "norm",
        "c": "conv",
        "token_embedding": "embedding",
        "cond_type_embedding": "embedding",
        "text_embedding.0": "linear",
        "d.scale": "parameter",
        "lonely.bias": "parameter",
        "position_ids": "buffer",
        "e": "buffer",
    }
    assert [layer.name for layer in inventory.of_kind("linear")] == ["a", "text_embedding.0"]


def test_a_bias_may_come_before_its_weight() -> None:
    inventory = inventory_of(infos(a__bias=(4,), a__weight=(4, 4)))
    assert list(inventory.layers) == ["a"]
    assert inventory.layers["a"].nbytes == 2 * (16 + 4)


def test_blocks_may_repeat_the_name_of_their_list(inventory_named: InventoryNamed) -> None:
    """Cosmos has ``blocks.block3``, with three parts that are no blocks of their own."""
    cosmos = inventory_named("cosmos-t2v-7b")
    assert cosmos.containers == {"blocks.block": 28}
    block = cosmos.layers["blocks.block27.blocks.2.block.layer1"].block
    assert block is not None and (block.index, block.count) == (27, 28)
    assert cosmos.layers["final_layer.linear"].block is None


def test_what_lies_beside_stable_audio_is_no_layer_of_the_model() -> None:
    """Its conditioners are in the same file, and ComfyUI loads them with torch's own Linear."""
    beside = "conditioner.conditioners.seconds_total.embedder.embedding.1"
    name = "transformer.layers.0.ff.ff.2"
    tensors = [
        TensorInfo(f"{layer}.{part}", shape, torch.float16)
        for layer in (beside, name)
        for part, shape in (("weight", (768, 256)), ("bias", (768,)))
    ]
    kinds = {layer.name: layer.kind for layer in inventory_of(tensors).layers.values()}
    assert kinds == {beside: "parameter", name: "linear"}
