"""Asks ComfyUI what quantized files of real models are: ``python detect_quantized.py RESULT.json``.

The result holds, per model and recipe, what differs from the unquantized file: nothing may.
Runs in ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``; tensors are on the meta device.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

result_path = Path(sys.argv[1])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_detection  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from foundry_package import import_foundry  # noqa: E402

import_foundry()

from nvfp4_foundry.quant.formats import get_format  # noqa: E402
from nvfp4_foundry.quant.planning import (  # noqa: E402
    Inventory,
    Plan,
    Recipe,
    detect_architecture,
    get_preset,
    inventory_of,
    make_plan,
)
from nvfp4_foundry.quant.planning.presets import preset_for  # noqa: E402
from nvfp4_foundry.quant.sources import TensorInfo  # noqa: E402
from nvfp4_foundry.tests.data import manifests  # noqa: E402

EVERYTHING = Recipe.model_validate({"name": "everything", "default": "nvfp4"})


def plans(inventory: Inventory) -> dict[str, Plan]:
    """Return plans of the presets, without spared edges, and one of every Linear there is."""
    preset = preset_for(detect_architecture(inventory))
    edges = {"edge_blocks": 0} if any(s.name == "edge_blocks" for s in preset.settings) else {}
    recipes = {
        "preset": preset.build(),
        "no edges": preset.build(edges),
        "all": get_preset("all").build(),
        "everything": EVERYTHING,
    }
    return {name: make_plan(recipe, inventory) for name, recipe in recipes.items()}


def stored(inventory: Inventory, plan: Plan) -> dict[str, torch.Tensor]:
    """Return the tensors of the checkpoint that a plan makes, empty."""
    tensors = {}
    for planned in plan.layers:
        layer, fmt = inventory.layers[planned.name], get_format(planned.format)
        for suffix, spec in fmt.tensor_specs(layer.shape, layer.tensor.dtype).items():
            name = layer.tensor.name if suffix == "weight" else f"{layer.name}.{suffix}"
            tensors[name] = torch.empty(spec.shape, dtype=spec.dtype, device="meta")
        if fmt.marker is not None:
            tensors[f"{layer.name}.comfy_quant"] = torch.empty(1, dtype=torch.uint8)
        for info in layer.companions:
            tensors[info.name] = torch.empty(info.shape, dtype=info.dtype, device="meta")
    return tensors


def detected(tensors: dict[str, torch.Tensor]) -> Any:
    """Return what ComfyUI takes a file for, as comparable text."""
    text_encoder = comfy.sd.detect_te_model(tensors)
    config = comfy.model_detection.detect_unet_config(tensors, "")
    if config is None:
        return str(text_encoder)
    return [type(comfy.model_detection.model_config_from_unet(tensors, "")).__name__, str(config)]


def differences(model: str) -> dict[str, Any]:
    """Return the recipes after which a model is taken for something else."""
    shapes = manifests.MODELS[model]()
    inventory = inventory_of(TensorInfo(n, s, torch.bfloat16) for n, s in shapes.items())
    plain = {n: torch.empty(s, dtype=torch.bfloat16, device="meta") for n, s in shapes.items()}
    expected = detected(plain)
    assert expected != "None", model
    found = {name: detected(stored(inventory, plan)) for name, plan in plans(inventory).items()}
    return {name: [expected, got] for name, got in found.items() if got != expected}


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    result = {model: differences(model) for model in manifests.MODELS}
    result_path.write_text(json.dumps(result))
