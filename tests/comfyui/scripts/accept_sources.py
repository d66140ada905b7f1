"""Takes models as people bring them through plan, file and ComfyUI.

``python accept_sources.py FOLDER CELLS``: CELLS is a JSON list of ``[kind of source, family]``.
Writes ``FOLDER/result.json``, a list in the same order. Runs in ComfyUI's Python with ComfyUI's
folder as ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import logging
import sys
from functools import cache
from pathlib import Path
from typing import Any

folder, cells = Path(sys.argv[1]), json.loads(sys.argv[2])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.sd  # noqa: E402
import torch  # noqa: E402
from foundry_package import import_foundry, take_tiny_models_for_whole  # noqa: E402
from sampling import sampled  # noqa: E402
from tiny_families import FAMILIES, small_settings  # noqa: E402

import_foundry()
take_tiny_models_for_whole()

from nvfp4_foundry.quant.checkpoint import verify_checkpoint  # noqa: E402
from nvfp4_foundry.quant.conversion.convert import convert  # noqa: E402
from nvfp4_foundry.quant.planning import get_preset, make_plan, take_inventory  # noqa: E402
from nvfp4_foundry.quant.planning.architectures import detect_architecture  # noqa: E402
from nvfp4_foundry.quant.planning.presets import preset_for  # noqa: E402
from nvfp4_foundry.quant.sources import open_source  # noqa: E402
from nvfp4_foundry.quant.sources.wan_names import wan_to_diffusers  # noqa: E402
from nvfp4_foundry.tests.helpers.quantized_files import Tensors  # noqa: E402
from nvfp4_foundry.tests.helpers.source_kinds import SOURCE_KINDS, Brought, one_file  # noqa: E402

WHOLE = "full checkpoint"


@cache
def weights(name: str) -> Tensors:
    """Return a family's random weights in bf16."""
    return {key: value.to(torch.bfloat16) for key, value in FAMILIES[name].tensors().items()}


def bring(kind: str, name: str) -> Brought:
    """Write a source of a kind; returns where it is."""
    place = folder / f"{name}-{kind}".replace(" ", "_")
    place.mkdir()
    metadata = FAMILIES[name].metadata
    if kind == "diffusers names":
        renamed = {wan_to_diffusers(key): value for key, value in weights(name).items()}
        return one_file(place, renamed, metadata)
    return SOURCE_KINDS[kind](place, weights(name), metadata)


def load(path: Path, kind: str) -> Any:
    """Load a file as stock nodes do: a full checkpoint by Load Checkpoint."""
    if kind != WHOLE:
        return comfy.sd.load_diffusion_model(str(path))
    return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False)[0]


@cache
def reference(name: str) -> torch.Tensor:
    """Return what the unquantized model samples."""
    place = folder / f"{name}-reference"
    place.mkdir()
    plain = one_file(place, weights(name), FAMILIES[name].metadata)
    return sampled(load(plain.path, "one file"), FAMILIES[name], 1)


def loaded_formats(model: torch.nn.Module) -> dict[str, str]:
    """Return the formats of the layers ComfyUI keeps quantized, as their markers say."""
    return {
        name: module.quant_format
        for name, module in model.named_modules()
        if type(getattr(module, "weight", None)).__name__ == "QuantizedTensor"
    }


@torch.inference_mode()
def accept(kind: str, name: str) -> dict[str, Any]:
    """Take one source of one family all the way."""
    family, brought = FAMILIES[name], bring(kind, name)
    target = folder / f"{name}-{kind}.safetensors".replace(" ", "_")
    with open_source(brought.path, brought.complete_from) as source:
        inventory = take_inventory(source)
        preset = preset_for(detect_architecture(inventory))
        plan = make_plan(get_preset(preset.name).build(small_settings(preset)), inventory)
        convert(source, plan, target, whole_file=kind == WHOLE)
    verified = verify_checkpoint(target, brought.path, complete_from=brought.complete_from)
    patcher = load(target, kind)
    latent, plain = sampled(patcher, family, 1), reference(name)
    return {
        "preset": preset.name,
        "problems": verified.problems,
        "planned": {la.name: la.format.removesuffix("_w4a16") for la in plan.quantized()},
        "loaded": loaded_formats(patcher.model.diffusion_model),
        "class": type(patcher.model.model_config).__name__,
        "finite": bool(latent.isfinite().all()),
        "moved": float((latent - plain).norm() / plain.norm()),
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    (folder / "result.json").write_text(json.dumps([accept(*cell) for cell in cells]))
