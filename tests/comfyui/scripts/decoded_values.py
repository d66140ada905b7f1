"""Compares what ComfyUI decodes from quantized files with the source: ``FOLDER``.

Writes ``FOLDER/result.json``: per tiny model and recipe, the largest error of a quantized Linear,
whether all other tensors are equal, and how many there are of both. The models have matrices that
are no Linear, or keys that the loader rewrites. Runs in ComfyUI's Python with ComfyUI's folder as
``PYTHONPATH``.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

folder = Path(sys.argv[1])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported
sys.path.append(str(Path(__file__).parents[2] / "data"))

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.supported_models  # noqa: E402
import torch  # noqa: E402
from building import build_network  # noqa: E402
from foundry_package import import_foundry, take_tiny_models_for_whole  # noqa: E402
from model_configs import HIDREAM, HUNYUAN_3D_21, STABLE_AUDIO_3, WAN_14B, Published  # noqa: E402
from published_names import published_names  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import_foundry()
take_tiny_models_for_whole()

from nvfp4_foundry.quant.conversion.convert import convert  # noqa: E402
from nvfp4_foundry.quant.planning import (  # noqa: E402
    Recipe,
    get_preset,
    make_plan,
    parse_rule_lines,
    take_inventory,
)
from nvfp4_foundry.quant.sources import open_source  # noqa: E402

StateDict = dict[str, torch.Tensor]
RECIPES = {
    "all in float8": get_preset("all").build({"format": "float8_e4m3fn"}),
    "all in NVFP4": get_preset("all").build(),
    "everything in float8": Recipe(rules=parse_rule_lines("* = float8_e4m3fn"), rounding="max"),
}
TINY = {
    "hidream-i1": Published("HiDream", HIDREAM | {
        "num_attention_heads": 2, "num_layers": 2, "num_single_layers": 2,
        "caption_channels": [256, 256], "text_emb_dim": 256, "llama_layers": [0, 1, 1, 1, 1],
    }),
    "hunyuan3d-2.1": Published("Hunyuan3Dv2_1", HUNYUAN_3D_21 | {
        "hidden_size": 256, "depth": 8, "num_heads": 4, "context_dim": 256}),
    "stable-audio-3": Published("StableAudio3", STABLE_AUDIO_3 | {
        "embed_dim": 256, "depth": 2, "num_heads": 4, "global_cond_dim": 256}),
    "wan2.2-animate": Published("WAN22_Animate", WAN_14B | {
        "model_type": "animate", "in_dim": 36, "dim": 256, "ffn_dim": 512, "num_heads": 2,
        "num_layers": 5}),
    "pixeldit": Published("PixelDiTT2I", {
        "image_model": "pixeldit_t2i", "num_groups": 4, "hidden_size": 256, "patch_depth": 2,
        "pixel_attn_hidden_size": 256, "pixel_num_groups": 4}),
    "trellis2": Published("Trellis2", {
        "image_model": "trellis2", "resolution": 32, "model_channels": 256, "num_blocks": 2,
        "num_heads": 4}, since="0.33"),
}  # fmt: skip


def source_of(model: str) -> tuple[Path, StateDict]:
    """Write a model with random weights; return the path, and the tensors by their module."""
    network, _ = build_network(TINY[model], quantized=False, device="cpu")
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: (0.05 * torch.randn(t.shape, generator=generator)).to(t.dtype)
        if t.is_floating_point()
        else t
        for name, t in network.state_dict().items()
    }
    path = folder / f"{model}.safetensors"
    published = published_names(model, tensors)
    save_file({name: t.contiguous() for name, t in published.items()}, path)
    return path, tensors


def loaded(model: str, path: Path) -> StateDict:
    """Load a file as ComfyUI does; return what its modules compute with."""
    network, config = build_network(TINY[model], quantized=True, device="cpu")
    network.load_state_dict(config.process_unet_state_dict(load_file(path)), strict=False)
    found: StateDict = {}
    for name, module in network.named_modules():
        for leaf, value in (*module.named_parameters(recurse=False),
                            *module.named_buffers(recurse=False)):  # fmt: skip
            tensor: Any = value.data
            decode = getattr(tensor, "dequantize", None)
            is_plain = type(tensor) is torch.Tensor
            found[f"{name}.{leaf}" if name else leaf] = (
                tensor if is_plain or decode is None else decode()
            )
    return found


def compared(model: str, recipe: Recipe) -> dict[str, Any]:
    """Convert a model, load it and compare every tensor."""
    path, before = source_of(model)
    target = folder / f"{model}.out.safetensors"
    with open_source(path) as source:
        plan = make_plan(recipe, take_inventory(source), any_architecture=True)
        convert(source, plan, target, overwrite=True)
    after = loaded(model, target)
    errors, changed = {}, []
    quantized = {
        f"{name}.weight".removeprefix("core.") for name in (la.name for la in plan.quantized())
    }
    for name, tensor in before.items():
        if name in quantized:
            error = (after[name].float() - tensor.float()).norm() / tensor.float().norm()
            errors[name] = float(error)
        elif not torch.equal(after[name].float(), tensor.float()):
            changed.append(name)
    worst = max(errors, key=lambda name: errors[name])
    return {"quantized": len(errors), "planned": len(quantized), "worst": [worst, errors[worst]],
            "changed": changed, "others": len(before) - len(errors)}  # fmt: skip


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    known = {cls.__name__ for cls in comfy.supported_models.models}
    result = {
        model: {title: compared(model, recipe) for title, recipe in RECIPES.items()}
        for model, published in TINY.items()
        if published.loaded_as in known
    }
    (folder / "result.json").write_text(json.dumps(result))
