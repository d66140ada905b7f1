"""Quantizes a tiny model of every family and samples it: ``python sample_families.py FOLDER``.

Writes ``FOLDER/result.json``: per family what ComfyUI loaded and how far the samples moved. Runs in
ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

folder, chosen = Path(sys.argv[1]), sys.argv[2:]
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.sd  # noqa: E402
import torch  # noqa: E402
from foundry_package import import_foundry  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from sampling import sampled  # noqa: E402
from tiny_families import FAMILIES, Family  # noqa: E402

import_foundry()

from nvfp4_foundry.nodes.bridge.model_source import ModelSource  # noqa: E402
from nvfp4_foundry.quant.checkpoint import verify_checkpoint  # noqa: E402
from nvfp4_foundry.quant.conversion.convert import convert  # noqa: E402
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory  # noqa: E402
from nvfp4_foundry.quant.planning.architectures import detect_architecture  # noqa: E402
from nvfp4_foundry.quant.planning.presets import preset_for  # noqa: E402
from nvfp4_foundry.quant.sources import open_source  # noqa: E402


def quantize(family: Family, source_path: Path, target: Path) -> dict[str, Any]:
    """Quantize with the family's preset; returns formats by layer and what was planned."""
    with open_source(source_path) as source:
        inventory = take_inventory(source)
        preset = preset_for(detect_architecture(inventory))
        plan = make_plan(get_preset(preset.name).build(family.settings), inventory)
        convert(source, plan, target)
    assert verify_checkpoint(target, source_path).problems == ()
    return {
        "preset": preset.name,
        "warnings": plan.warnings,
        "planned": {la.name: la.format for la in plan.quantized()},
    }


def loaded_formats(model: torch.nn.Module) -> dict[str, str]:
    """Return the formats of the Linears ComfyUI keeps quantized, in this pack's names."""
    found = {}
    for name, module in model.named_modules():
        fmt = getattr(module, "quant_format", None)
        if fmt is not None and type(module.weight).__name__ == "QuantizedTensor":
            found[name] = f"{fmt}_w4a16" if module._full_precision_mm_config else fmt
    return found


def sample(path: Path, family: Family) -> tuple[torch.Tensor, Any]:
    """Sample two steps; returns all values of the latent, and the MODEL."""
    patcher = comfy.sd.load_diffusion_model(str(path))
    return sampled(patcher, family, 2), patcher


def published(name: str) -> str:
    """Return what the files of Flux's makers call a norm's factors; ComfyUI renames them."""
    is_theirs = name.startswith(("double_blocks.", "single_blocks."))
    return name.replace("_norm.weight", "_norm.scale") if is_theirs else name


@torch.inference_mode()
def try_family(name: str, family: Family) -> dict[str, Any]:
    """Load, quantize, load and sample one family."""
    source, target = folder / f"{name}.safetensors", folder / f"{name}-quantized.safetensors"
    metadata = dict(family.metadata) or None
    tensors = {published(key): value.to(torch.bfloat16) for key, value in family.tensors().items()}
    save_file(tensors, source, metadata=metadata)
    result = quantize(family, source, target)
    plain, model = sample(source, family)
    quantized, quantized_model = sample(target, family)
    with ModelSource(model) as through_socket:
        same_names = set(through_socket.tensors) == set(tensors)
    return result | {
        "class": type(model.model).__name__,
        "quantized_class": type(quantized_model.model).__name__,
        "loaded": loaded_formats(quantized_model.model.diffusion_model),
        "same_names": same_names,
        "finite": bool(plain.isfinite().all() and quantized.isfinite().all()),
        "moved": float((quantized - plain).norm() / plain.norm()),
        "std": float(plain.std()),
        "sizes": [source.stat().st_size, target.stat().st_size],
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    names = chosen or list(FAMILIES)
    result = {name: try_family(name, FAMILIES[name]) for name in names}
    (folder / "result.json").write_text(json.dumps(result))
