"""Recognising models by their keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nvfp4_foundry.quant.errors import PlanError
from nvfp4_foundry.quant.planning import (
    Inventory,
    detect_architecture,
    get_preset,
    inventory_of,
    make_plan,
)
from nvfp4_foundry.quant.sources import TensorInfo

InventoryNamed = Callable[[str], Inventory]


@pytest.mark.parametrize(
    ("model", "identity", "facts"),
    [
        ("wan2.2-ti2v-5b", "wan-ti2v", "48 input channels, width 3072, 30 blocks"),
        ("wan2.2-t2v-14b", "wan-t2v", "16 input channels, width 5120, 40 blocks"),
        ("wan2.2-i2v-14b", "wan-i2v", "36 input channels, width 5120, 40 blocks"),
        ("qwen-image-2512", "qwen-image", "60 blocks"),
        ("qwen-image-edit-2511", "qwen-image-edit-2511", "60 blocks"),
        ("flux", "transformer", "3 double_blocks, 4 single_blocks"),
        ("lumina", "transformer", "4 layers, 2 context_refiner, 2 noise_refiner"),
    ],
)
def test_models(inventory_named: InventoryNamed, model: str, identity: str, facts: str) -> None:
    found = detect_architecture(inventory_named(model))
    assert (found.id, found.facts, found.problem) == (identity, facts, None)


def test_nothing_known(inventory_named: InventoryNamed) -> None:
    assert detect_architecture(Inventory({})).id == "unknown"


def test_wan_with_diffusers_names_is_refused(inventory_named: InventoryNamed) -> None:
    names = ["condition_embedder.time_proj.weight"]
    names += [f"blocks.{i}.attn1.to_{p}.weight" for i in range(2) for p in "qkv"]
    dtype = next(iter(inventory_named("flux").layers.values())).tensor.dtype
    inventory = inventory_of(TensorInfo(name, (64, 64), dtype) for name in names)
    assert detect_architecture(inventory).id == "wan-diffusers"
    with pytest.raises(PlanError, match="ComfyUI does not load WAN with diffusers names"):
        make_plan(get_preset("smart").build(), inventory)
