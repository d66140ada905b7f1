"""The presets of all families on the key lists of the real models."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from types import ModuleType

import pytest
import torch
from nvfp4_foundry.quant.formats import get_format
from nvfp4_foundry.quant.planning import (
    Inventory,
    Plan,
    detect_architecture,
    get_preset,
    inventory_of,
    load_presets,
    make_plan,
)
from nvfp4_foundry.quant.planning.presets import preset_for
from nvfp4_foundry.quant.sources import TensorInfo

from tests.quant.planning.family_formats import EXPECTED, FP8

InventoryNamed = Callable[[str], Inventory]
BYTES = {"nvfp4": 0.5625, "nvfp4_w4a16": 0.5625, FP8: 1.0, "bf16": 2.0, "keep": 2.0}


@pytest.mark.parametrize("model", EXPECTED)
def test_defaults(inventory_named: InventoryNamed, model: str) -> None:
    preset, by_format = EXPECTED[model]
    inventory = inventory_named(model)
    plan = make_plan(get_preset(preset).build(), inventory, any_architecture=True)
    assert plan.warnings == ()
    found = {la.name: la.format for la in plan.layers if la.format != "keep"}
    expected = {}
    for layer in inventory.of_kind("linear"):
        matching = [fmt for fmt, names in by_format.items() if re.fullmatch(names, layer.name)]
        if matching:
            expected[layer.name] = matching[0]
    assert found == expected
    assert set(found.values()) == set(by_format)


@pytest.mark.parametrize("model", EXPECTED)
def test_sizes(inventory_named: InventoryNamed, manifests: ModuleType, model: str) -> None:
    preset = get_preset(EXPECTED[model][0]).build()
    plan = make_plan(preset, inventory_named(model), any_architecture=True)
    formats = {f"{la.name}.weight": la.format for la in plan.layers}
    shapes = manifests.shapes_of(model)
    expected = sum(prod(shape) * BYTES[formats.get(n, "keep")] for n, shape in shapes.items())
    assert plan.bytes_before == 2 * sum(map(prod, shapes.values()))
    assert plan.bytes_after == pytest.approx(expected, rel=0.01)


def recipes(preset: str) -> dict[str, dict[str, int | str]]:
    """Return the default settings and every choice of each setting by itself."""
    found: dict[str, dict[str, int | str]] = {"default": {}}
    for setting in load_presets()[preset].settings:
        for value in setting.choices or (setting.min, 3):
            found[f"{setting.name}={value}"] = {setting.name: value}
    return found


def require_only_block_linears(plan: Plan, inventory: Inventory) -> None:
    for planned in plan.quantized():
        layer = inventory.layers[planned.name]
        assert layer.kind == "linear" and layer.block is not None, planned.name


def test_every_model_with_every_setting(
    inventory_named: InventoryNamed, manifests: ModuleType
) -> None:
    """Only Linear layers in blocks are quantized, and settings change what they describe.

    The settings of a preset are tried on the first of its models, its defaults on all.
    """
    tried = set()
    for model in manifests.MODELS:
        inventory = inventory_named(model)
        preset = preset_for(detect_architecture(inventory)).name
        plans = {}
        for name, settings in recipes(preset).items():
            if name == "default" or preset not in tried:
                plan = make_plan(get_preset(preset).build(settings), inventory)
                require_only_block_linears(plan, inventory)
                plans[name] = plan
        assert plans["default"].warnings == (), model
        settings_tried = () if preset in tried else load_presets()[preset].settings
        tried.add(preset)
        for setting in settings_tried:
            if setting.type == "choice" and preset != "smart":  # whose rules most models lack
                sizes = [plans[f"{setting.name}={fmt}"].bytes_after for fmt in (FP8, "keep")]
                assert sizes[0] < sizes[1] or setting.name in NEEDS, (model, setting.name)
    assert tried == set(load_presets()) - {"all"}


#: Settings for layers that the first model of a preset lacks, and a model that has them.
NEEDS = {"adapter_format": "wan2.2-animate"}


@pytest.mark.parametrize("setting", NEEDS)
def test_settings_of_some_models(inventory_named: InventoryNamed, setting: str) -> None:
    inventory = inventory_named(NEEDS[setting])
    preset = preset_for(detect_architecture(inventory))
    sizes = [
        make_plan(preset.build({setting: fmt}), inventory).bytes_after
        for fmt in ("nvfp4", FP8, "keep")
    ]
    assert sizes == sorted(set(sizes))


def test_every_rule_decides_something(
    inventory_named: InventoryNamed, manifests: ModuleType
) -> None:
    """A rule that matches no layer of any model of its preset would be a slip of the pen."""
    used: dict[str, set[str]] = {}
    for model in (*manifests.MODELS, "wan-dancer", "qwen3.5-2b"):
        inventory = inventory_named(model)
        plan = make_plan(preset_for(detect_architecture(inventory)).build(), inventory)
        decided = {la.reason.partition(":")[0] for la in plan.layers}
        used.setdefault(plan.recipe.name, set()).update(decided)
    for name, preset in load_presets().items():
        if preset.architectures:
            wanted = {f"rule {number + 1}" for number in range(len(preset.rules))}
            assert wanted <= used[name], (name, wanted - used[name])


@pytest.mark.parametrize("model", EXPECTED)
def test_what_comfyui_reads_keeps_its_shape(inventory_named: InventoryNamed, model: str) -> None:
    """No default format packs a shape that tells ComfyUI what the model is."""
    inventory = inventory_named(model)
    plan = make_plan(get_preset(EXPECTED[model][0]).build(), inventory, any_architecture=True)
    for planned in plan.layers:
        if planned.name in plan.architecture.shapes_read:
            specs = get_format(planned.format).tensor_specs(planned.shape, torch.bfloat16)
            assert specs["weight"].shape == planned.shape


def shorter(inventory: Inventory, blocks: int) -> Inventory:
    """Return a model with only the first blocks of every list."""
    return inventory_of(
        TensorInfo(info.name, info.shape, info.dtype)
        for layer in inventory.layers.values()
        if layer.block is None or layer.block.index < blocks
        for info in (layer.tensor, *layer.companions)
    )


@pytest.mark.parametrize(
    "model", ["flux1-dev", "flux2-klein-9b", "chroma", "z-image", "ltx-2", "hunyuan-video-1.5"]
)
def test_other_depths(inventory_named: InventoryNamed, model: str) -> None:
    """``last`` counts the blocks of the given model."""
    inventory = shorter(inventory_named(model), 6)
    preset = preset_for(detect_architecture(inventory))
    plan = make_plan(preset.build({"edge_blocks": 1, "edge_format": "bf16"}), inventory)
    edges = {la.name for la in plan.layers if la.format == "bf16"}
    blocks = {(b.container, b.index) for n in edges if (b := inventory.layers[n].block)}
    assert blocks in (
        {("double_blocks", 0), ("single_blocks", 5)},
        {("double_blocks", 0), ("double_blocks", 5)},
        {("layers", 0), ("layers", 5)},
        {("transformer_blocks", 0), ("transformer_blocks", 5)},
    )


def documented_sizes() -> list[tuple[str, str, list[str]]]:
    """Return model, preset and sizes of every row of the user guide's table."""
    guide = (Path(__file__).parents[3] / "docs" / "guide" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| [^|]+ \| `([^`]+)` \| ([\d.]+) \| `([^`]+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$",
        guide, re.MULTILINE,
    )  # fmt: skip
    return [(model, preset, [before, *after]) for model, before, preset, *after in rows]


def test_documented_sizes(inventory_named: InventoryNamed, manifests: ModuleType) -> None:
    rows = documented_sizes()
    assert {model for model, *_ in rows} == set(manifests.MODELS) - {"flux1-schnell"}
    for model, preset, sizes in rows:
        inventory = inventory_named(model)
        assert preset == preset_for(detect_architecture(inventory)).name
        plans = [make_plan(get_preset(p).build(), inventory) for p in (preset, "smart", "all")]
        found = [plans[0].bytes_before, *(plan.bytes_after for plan in plans)]
        assert [f"{size / 1e9:.2f}" for size in found] == sizes, model
