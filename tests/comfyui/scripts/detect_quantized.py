"""Asks ComfyUI what quantized files of published models are, and loads them without their values.

``python detect_quantized.py RESULT.json [MODEL...]``. The result holds, per model and recipe, what
differs from the unquantized file: nothing may. Models that this ComfyUI does not know are left out.
Runs in ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``; tensors are on the meta device.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

result_path, chosen = Path(sys.argv[1]), sys.argv[2:]
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported
sys.path.append(str(Path(__file__).parents[2] / "data"))

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_detection  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.supported_models  # noqa: E402
import torch  # noqa: E402
from building import quantized_network  # noqa: E402
from foundry_package import import_foundry  # noqa: E402
from model_configs import DIFFUSION  # noqa: E402

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

StateDict = dict[str, torch.Tensor]
#: A network and ComfyUI's configuration of it.
Network = tuple[torch.nn.Module, Any]
EVERYTHING = Recipe.model_validate({"name": "everything", "default": "nvfp4"})
#: The recipes whose files are also loaded; the others quantize some of the same layers.
LOADED = ("preset", "everything")
#: The control: ComfyUI must complain about this model if all its matrices are quantized.
CONTROL = "hidream-i1"


def plans(inventory: Inventory) -> dict[str, Plan]:
    """Return plans of the presets, without spared edges, and one of every Linear there is."""
    preset = preset_for(detect_architecture(inventory))
    edges = {"edge_blocks": 0} if any(s.name == "edge_blocks" for s in preset.settings) else {}
    recipes = {
        "preset": preset.build(),
        "no edges": preset.build(edges),
        "smart": get_preset("smart").build(),
        "all": get_preset("all").build(),
        "everything": EVERYTHING,
    }
    return {
        name: make_plan(recipe, inventory, any_architecture=True)
        for name, recipe in recipes.items()
    }


def stored(inventory: Inventory, plan: Plan) -> StateDict:
    """Return the tensors of the checkpoint that a plan makes, all but the markers empty."""
    tensors = {}
    for planned in plan.layers:
        layer, fmt = inventory.layers[planned.name], get_format(planned.format)
        for suffix, spec in fmt.tensor_specs(layer.shape, layer.tensor.dtype).items():
            name = layer.tensor.name if suffix == "weight" else f"{layer.name}.{suffix}"
            tensors[name] = torch.empty(spec.shape, dtype=spec.dtype, device="meta")
        if fmt.marker is not None:
            marker = bytearray(fmt.marker_bytes(layer.shape))
            tensors[f"{layer.name}.comfy_quant"] = torch.frombuffer(marker, dtype=torch.uint8)
        for info in layer.companions:
            tensors[info.name] = torch.empty(info.shape, dtype=info.dtype, device="meta")
    return tensors


def header_of(model: str) -> dict[str, str]:
    """Return the header of a published file."""
    transformer = manifests.load_record(model).get("transformer")
    return {"config": json.dumps({"transformer": transformer})} if transformer else {}


def detected(tensors: StateDict, header: dict[str, str]) -> Any:
    """Return what ComfyUI takes a file for, as comparable text."""
    config = comfy.model_detection.detect_unet_config(tensors, "", metadata=header)
    if config is None:
        return str(comfy.sd.detect_te_model(tensors))
    found = comfy.model_detection.model_config_from_unet(tensors, "", metadata=header)
    return [type(found).__name__, str(config)]


def complaints(built: Network, tensors: StateDict) -> list[str]:
    """Return what the loader finds wrong with a file: names it lacks, and names it has no use for.

    A quantized layer must arrive in a module that decodes it to the published shape. The network
    may have been filled before: building it takes longer than filling it.
    """
    network, config = built
    for module in network.modules():
        if getattr(module, "quant_format", None) is not None:
            module.quant_format = module.layout_type = None
    wanted = {name.removesuffix(".comfy_quant") for name in tensors if name.endswith("comfy_quant")}
    found = network.load_state_dict(
        config.process_unet_state_dict(dict(tensors)), strict=False, assign=True
    )
    decoding = {
        name: tuple(module.weight.shape)
        for name, module in network.named_modules()
        if getattr(module, "quant_format", None) is not None
    }
    faults = [f"missing {name}" for name in found.missing_keys]
    faults += [f"unexpected {name}" for name in found.unexpected_keys]
    if len(decoding) != len(wanted):
        faults.append(f"{len(decoding)} of {len(wanted)} layers are decoded")
    shapes = {name: tuple(module._orig_shape) for name, module in named_linears(network)}
    faults += [f"{n} is {s}" for n, s in decoding.items() if n in shapes and s != shapes[n]]
    return sorted(faults)


def named_linears(network: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the modules that know the shape of the weight they decode."""
    return ((n, m) for n, m in network.named_modules() if hasattr(m, "_orig_shape"))


def differences(model: str, *, every_matrix: bool = False) -> dict[str, Any]:
    """Return the recipes after which a model is taken for something else or does not load."""
    shapes, header = manifests.load_key_list(model), header_of(model)
    infos = [TensorInfo(name, shape, torch.bfloat16) for name, shape in shapes.items()]
    matrices = frozenset(n.removesuffix(".weight") for n, s in shapes.items() if len(s) == 2)
    inventory = inventory_of(
        infos, metadata=header, linear_layers=matrices if every_matrix else None
    )
    plain = {n: torch.empty(s, dtype=torch.bfloat16, device="meta") for n, s in shapes.items()}
    expected = detected(plain, header)
    assert expected != "None", model
    network = quantized_network(DIFFUSION[model]) if model in DIFFUSION else None
    complained = complaints(network, plain) if network else []
    found: dict[str, Any] = {}
    for recipe, plan in plans(inventory).items():
        tensors = stored(inventory, plan)
        if detected(tensors, header) != expected:
            found[recipe] = [expected, detected(tensors, header)]
        elif network and recipe in LOADED:
            new = [fault for fault in complaints(network, tensors) if fault not in complained]
            found |= {recipe: new} if new else {}
    return found


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    known = {cls.__name__ for cls in comfy.supported_models.models}
    models = [
        model
        for model in chosen or manifests.GENERATED
        if not manifests.is_vae(model)
        and (model not in DIFFUSION or DIFFUSION[model].loaded_as in known)
    ]
    result = {model: differences(model) for model in models}
    result["control"] = differences(CONTROL, every_matrix=True)
    result_path.write_text(json.dumps(result))
