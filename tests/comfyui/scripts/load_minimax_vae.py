"""Quantizes a small video VAE of MiniMax H3 and decodes with it: ``python ... FOLDER``.

Writes ``FOLDER/result.json``; null if this ComfyUI does not know the model. Its decoder is built at
another size than the real one. Runs in ComfyUI's Python with ComfyUI's folder as ``PYTHONPATH``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

folder = Path(sys.argv[1])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads its options when it is first imported

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ops  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from foundry_package import import_foundry  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import_foundry()

from nvfp4_foundry.quant.checkpoint import verify_checkpoint  # noqa: E402
from nvfp4_foundry.quant.cli import main  # noqa: E402
from nvfp4_foundry.quant.sources import open_source  # noqa: E402

SIZES = {"num_layers": 3, "heads": 4, "dim_head": 64}


def random(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return random weights, the same every time."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for name, meta in model.state_dict().items():
        values = torch.randn(meta.shape, generator=generator)
        is_norm = meta.dim() == 1 and ("norm" in name or "scale" in name or name.endswith("std"))
        fan_in = meta[0].numel() if meta.dim() > 1 else 100
        value = values / fan_in**0.5
        found[name] = (1 + value if is_norm else value).to(torch.bfloat16)
    return found


def load(tensors: dict[str, torch.Tensor]) -> Any:
    """Load as stock Load VAE does."""
    return comfy.sd.VAE(sd=dict(tensors), dtype=torch.float32)


def decode(vae: Any) -> torch.Tensor:
    """Return the picture of a latent."""
    latent = torch.randn(1, 24, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    return vae.decode(latent).float()


def moved(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative difference."""
    return float((a - b).float().norm() / a.float().norm())


def errors(vae: Any, original: dict[str, torch.Tensor]) -> dict[str, list[Any]]:
    """Return what ComfyUI made of each matrix: its format, and how far it is from the source."""
    found = {}
    for name, module in vae.first_stage_model.named_modules():
        weight = getattr(module, "weight", None)
        if f"{name}.weight" in original and weight is not None and weight.dim() == 2:
            fmt = getattr(module, "quant_format", None) or "none"
            plain = weight.dequantize() if fmt != "none" else weight
            found[name] = [fmt, moved(original[f"{name}.weight"].float(), plain.float())]
    return found


def try_format(name: str, arguments: list[str], plain: Any) -> dict[str, Any]:
    """Quantize the file and load it."""
    source, target = folder / "vae.safetensors", folder / f"vae-{name}.safetensors"
    code = main(["quantize", str(source), str(target), *arguments])
    with open_source(target) as opened:
        decoded = {tensor: opened.load(tensor) for tensor in opened.tensors}
    vae = load(load_file(target))
    return {
        "exit_code": code,
        "problems": verify_checkpoint(target, source).problems,
        "errors": errors(vae, load_file(source)),
        "moved": moved(plain, decode(vae)),
        "off": moved(decode(load(decoded)), decode(vae)),
    }


def run() -> dict[str, Any] | None:
    """Try the formats."""
    if importlib.util.find_spec("comfy.ldm.minimax") is None:
        return None
    module = importlib.import_module("comfy.ldm.minimax.vae")
    whole, decoder = module.MiniMaxH3VideoVAE, module.ViT3DDecoder
    with (
        mock.patch.object(module, "ViT3DDecoder", partial(decoder, **SIZES)),
        mock.patch.object(module, "MiniMaxH3VideoVAE", partial(whole, ch=32)),
    ):
        save_file(random(module.MiniMaxH3VideoVAE()), folder / "vae.safetensors")
        plain = decode(load(load_file(folder / "vae.safetensors")))
        tried = {
            "auto": ["--preset", "auto"],
            "all": ["--preset", "all", "--set", "*=nvfp4_w4a16"],
            "float8": ["--preset", "all", "--set", "*=float8_e4m3fn"],
        }
        found = {name: try_format(name, arguments, plain) for name, arguments in tried.items()}
    return {"finite": bool(plain.isfinite().all()), "std": float(plain.std()), **found}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with torch.inference_mode():
        (folder / "result.json").write_text(json.dumps(run()))
