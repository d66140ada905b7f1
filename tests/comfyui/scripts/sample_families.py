"""Quantizes a tiny model of every family and samples it: ``python sample_families.py FOLDER``.

Names of families after the folder limit it to them. Writes ``FOLDER/result.json``: per family
what ComfyUI loaded, how its weights and samples compare with what the pack says of the file, and
how far they are from the unquantized ones. Runs in ComfyUI's Python with ComfyUI's folder as
``PYTHONPATH``.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from pathlib import Path
from typing import Any

folder, chosen = Path(sys.argv[1]), sys.argv[2:]
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import torch  # noqa: E402
from foundry_package import import_foundry, take_tiny_models_for_whole  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from sampling import loaded, sampled  # noqa: E402
from tiny_families import FAMILIES, Family, small_settings  # noqa: E402

import_foundry()
take_tiny_models_for_whole()

from nvfp4_foundry.nodes.bridge.model_source import ModelSource  # noqa: E402
from nvfp4_foundry.quant.checkpoint import verify_checkpoint  # noqa: E402
from nvfp4_foundry.quant.conversion.convert import convert  # noqa: E402
from nvfp4_foundry.quant.conversion.report import LayerReport  # noqa: E402
from nvfp4_foundry.quant.formats import get_format  # noqa: E402
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory  # noqa: E402
from nvfp4_foundry.quant.planning.architectures import detect_architecture  # noqa: E402
from nvfp4_foundry.quant.planning.architectures.lumina import _BY_WIDTH  # noqa: E402
from nvfp4_foundry.quant.planning.presets import preset_for  # noqa: E402
from nvfp4_foundry.quant.sources import open_source, open_tensors  # noqa: E402

# The pack tells them by their width, as ComfyUI does.
TINY_LUMINAS = {192: ("lumina2", "Lumina 2"), 256: ("z-image", "Z-Image")}


class Complaints(logging.Handler):
    """Keeps what ComfyUI says of tensors that it misses or does not know."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message if it is about tensors."""
        text = record.getMessage()
        if text.startswith(("unet missing", "unet unexpected", "left over keys")):
            self.said.append(text)


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def quantize(
    source_path: Path, target: Path, name: str | None
) -> tuple[str, dict[str, LayerReport]]:
    """Quantize with a preset, or with the one for the model; returns its name and what it made.

    The report counts, not the plan: experts without a calibration keep 16-bit inputs.
    """
    with open_source(source_path) as source:
        inventory = take_inventory(source)
        preset = get_preset(name or preset_for(detect_architecture(inventory)).name)
        recipe = preset.build(small_settings(preset))
        if name is not None:  # a search of the scales would take most of the test's time
            recipe = recipe.model_copy(update={"rounding": "max"})
        plan = make_plan(recipe, inventory)
        report = convert(source, plan, target)
    assert verify_checkpoint(target, source_path).problems == ()
    made = {layer.name: layer for layer in report.layers if get_format(layer.format).is_quantized}
    return preset.name, made


def decoded_weights(target: Path, made: dict[str, LayerReport]) -> dict[str, torch.Tensor]:
    """Return what the pack says the quantized layers of a file are."""
    found = {}
    with open_tensors(target) as saved:
        for layer in made.values():
            start = f"{layer.name}."
            inside = [name for name in saved.tensors if name.startswith(start)]
            parts = {name.removeprefix(start): saved.load(name) for name in inside}
            found[layer.name] = get_format(layer.format).decode(parts, layer.shape)
    return found


def quantized_modules(model: torch.nn.Module) -> dict[str, Any]:
    """Return the layers that ComfyUI keeps quantized."""
    return {
        name: module
        for name, module in model.named_modules()
        if type(getattr(module, "weight", None)).__name__ == "QuantizedTensor"
    }


def other_kinds(model: torch.nn.Module, source_path: Path, prefix: str) -> list[str]:
    """Return the layers that the pack and ComfyUI do not both take for a Linear."""
    theirs = {
        f"{prefix}{name}"
        for name, module in model.named_modules()
        if hasattr(module, "comfy_cast_weights") and hasattr(module, "in_features")
    }
    with open_source(source_path) as source:
        layers = take_inventory(source).layers.values()
    return sorted(theirs ^ {layer.name for layer in layers if layer.kind == "linear"})


def format_of(module: Any) -> str:
    """Return the format of a quantized layer, in this pack's names."""
    name = module.quant_format
    return f"{name}_w4a16" if module._full_precision_mm_config else name


def try_preset(
    name: str, family: Family, chosen_preset: str | None, plain: torch.Tensor
) -> dict[str, Any]:
    """Quantize, load and sample; beside it the unquantized model that is given our weights."""
    source = folder / f"{name}.safetensors"
    target = folder / f"{name}-{chosen_preset or 'quantized'}.safetensors"
    preset, made = quantize(source, target, chosen_preset)
    patcher, decoded = loaded(target, family), decoded_weights(target, made)
    modules = {
        f"{family.prefix}{layer}": module
        for layer, module in quantized_modules(patcher.model.diffusion_model).items()
    }
    quantized = sampled(patcher, family, 2)
    twin = loaded(source, family)
    errors = {}
    for layer, weight in decoded.items():
        linear = twin.model.diffusion_model.get_submodule(layer.removeprefix(family.prefix))
        errors[layer] = difference(weight, linear.weight)
        linear.weight.copy_(weight)
    return {
        "preset": preset,
        "class": type(patcher.model.model_config).__name__,
        "planned": {name: layer.format for name, layer in made.items()},
        "loaded": {layer: format_of(module) for layer, module in modules.items()},
        "decoded": max(
            difference(module.weight.dequantize(), decoded[layer])
            for layer, module in modules.items()
        ),
        "errors": errors,
        "apart": difference(quantized, sampled(twin, family, 2)),
        "moved": difference(quantized, plain),
        "size": target.stat().st_size,
    }


@torch.inference_mode()
def try_family(name: str, family: Family) -> dict[str, Any]:
    """Load, quantize, load and sample one family."""
    source = folder / f"{name}.safetensors"
    tensors = {key: value.to(torch.bfloat16) for key, value in family.tensors().items()}
    save_file(tensors, source, metadata=dict(family.metadata) or None)
    model = loaded(source, family)
    plain = sampled(model, family, 2)
    with ModelSource(model) as through_socket:
        same_names = set(through_socket.tensors) == set(tensors)
    return {
        "class": type(model.model.model_config).__name__,
        "same_names": same_names,
        "other_kinds": other_kinds(model.model.diffusion_model, source, family.prefix),
        "std": float(plain.std()),
        "size": source.stat().st_size,
        "presets": [try_preset(name, family, preset, plain) for preset in (None, "all")],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    _BY_WIDTH.update(TINY_LUMINAS)
    complaints = Complaints()
    logging.getLogger().handlers = [complaints]
    result = {}
    for name in chosen or FAMILIES:
        complaints.said = []
        try:
            found = try_family(name, FAMILIES[name])
        except Exception:  # one family must not hide the others
            found = {"failed": traceback.format_exc()}
        result[name] = found | {"complaints": complaints.said}
    (folder / "result.json").write_text(json.dumps(result))
