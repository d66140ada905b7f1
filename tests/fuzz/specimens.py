"""Valid files of a tiny model, from which mutated ones are made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from nvfp4_foundry.quant.calibration.storage import save_statistics
from nvfp4_foundry.quant.cli import main
from nvfp4_foundry.quant.planning import take_inventory
from nvfp4_foundry.quant.sources import open_source
from safetensors.torch import save_file

from tests.helpers.gguf_files import wan_types, write_gguf
from tests.helpers.made_up_calibration import made_up_calibration
from tests.helpers.made_up_sensitivity import save_made_up
from tests.helpers.quantized_files import comfyui_float8, modelopt, scaled_fp8

_DIM, _FFN, _BLOCKS = 64, 128, 2
LOG = "nvfp4\tdynamic\tblocks.0.ffn.0\t0.001\t2.5\t(1, 77, 64)\n" * 40


@dataclass(frozen=True)
class Specimens:
    """Paths of valid files; see `write_specimens`."""

    folder: Path
    model: Path
    nvfp4: Path
    gguf: Path
    calibration: Path
    sensitivity: Path
    recipe: Path
    pickle: Path
    foreign: tuple[Path, ...]


def tiny_wan() -> dict[str, torch.Tensor]:
    """Return a WAN of width 64 with two blocks."""
    torch.manual_seed(0)
    made: dict[str, torch.Tensor] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        made[f"{name}.weight"] = (torch.randn(outputs, inputs) * 0.02).bfloat16()
        made[f"{name}.bias"] = (torch.randn(outputs) * 0.02).bfloat16()

    made["patch_embedding.weight"] = torch.randn(_DIM, 16, 1, 2, 2).bfloat16()
    made["patch_embedding.bias"] = torch.zeros(_DIM).bfloat16()
    linear("text_embedding.0", 128, _DIM)
    linear("text_embedding.2", _DIM, _DIM)
    linear("time_embedding.0", 256, _DIM)
    linear("time_embedding.2", _DIM, _DIM)
    linear("time_projection.1", _DIM, 6 * _DIM)
    for block in range(_BLOCKS):
        at = f"blocks.{block}."
        made[f"{at}modulation"] = torch.randn(1, 6, _DIM).bfloat16()
        for attention in ("self_attn.", "cross_attn."):
            for leaf in "qkvo":
                linear(at + attention + leaf, _DIM, _DIM)
            for leaf in ("norm_q", "norm_k"):
                made[f"{at}{attention}{leaf}.weight"] = torch.ones(_DIM).bfloat16()
        made[f"{at}norm3.weight"] = torch.ones(_DIM).bfloat16()
        made[f"{at}norm3.bias"] = torch.zeros(_DIM).bfloat16()
        linear(f"{at}ffn.0", _DIM, _FFN)
        linear(f"{at}ffn.2", _FFN, _DIM)
    linear("head.head", _DIM, 64)
    made["head.modulation"] = torch.randn(1, 2, _DIM).bfloat16()
    return made


def write_specimens(folder: Path) -> Specimens:
    """Write one valid file of each kind to a folder."""
    tensors = tiny_wan()
    model = folder / "model.safetensors"
    save_file(tensors, model)
    calibration, sensitivity = folder / "calibration.safetensors", folder / "sensitivity.json"
    with open_source(model) as source:
        save_statistics(made_up_calibration(take_inventory(source)), calibration)
    save_made_up(sensitivity, str(model), {"nvfp4": 0.1, "float8_e4m3fn": 0.02})
    recipe = folder / "recipe.json"
    nvfp4 = folder / "nvfp4.safetensors"
    _run("recipe", "show", "smart", "--output", recipe)
    _run("quantize", model, nvfp4, "--preset", "all", "--calibration", calibration)
    pickle = folder / "model.pt"
    torch.save({"state_dict": tensors}, pickle)
    gguf = folder / "model.gguf"
    write_gguf(gguf, tensors, wan_types)
    foreign = []
    for name, made in (
        ("scaled", scaled_fp8(tensors)),
        ("float8", comfyui_float8(tensors)),
        ("modelopt", modelopt(tensors)),
    ):
        path = folder / f"{name}.safetensors"
        markers = {"format_version": "1.0", "layers": {"blocks.0.ffn.0": {"format": "nvfp4"}}}
        metadata = {"_quantization_metadata": json.dumps(markers)} if name == "modelopt" else None
        save_file({n: t.contiguous() for n, t in made.items()}, path, metadata)
        foreign.append(path)
    return Specimens(
        folder, model, nvfp4, gguf, calibration, sensitivity, recipe, pickle, tuple(foreign)
    )


def _run(*arguments: object) -> None:
    if main([str(a) for a in arguments]) != 0:
        raise RuntimeError(f"a valid command failed: {arguments}")
