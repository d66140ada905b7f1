"""A model as the files people bring: every kind of source, written for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from .gguf_files import write_gguf
from .quantized_files import MAKERS, Tensors, is_linear_in_block

PREFIX = "model.diffusion_model."
#: What a full checkpoint holds beside the model.
BESIDE = {
    "first_stage_model.decoder.conv_in.bias": torch.ones(4),
    "cond_stage_model.logit_scale": torch.ones(()),
}


@dataclass(frozen=True)
class Brought:
    """Where a source is, and what completes it if it needs that."""

    path: Path
    complete_from: Path | None = None


Write = Callable[[Path, Tensors, Mapping[str, str]], Brought]


def _file(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> Brought:
    save_file({n: t.contiguous() for n, t in tensors.items()}, path, dict(metadata) or None)
    return Brought(path)


def one_file(folder: Path, model: Tensors, metadata: Mapping[str, str]) -> Brought:
    """One safetensors file, the names as they are."""
    return _file(folder / "model.safetensors", model, metadata)


def prefixed(folder: Path, model: Tensors, metadata: Mapping[str, str]) -> Brought:
    """One file of the diffusion model alone, with the prefix of checkpoints."""
    return _file(folder / "m.safetensors", {PREFIX + n: t for n, t in model.items()}, metadata)


def full_checkpoint(folder: Path, model: Tensors, metadata: Mapping[str, str]) -> Brought:
    """Text encoder and VAE beside the model."""
    named = {PREFIX + name: tensor for name, tensor in model.items()}
    return _file(folder / "full.safetensors", {**named, **BESIDE}, metadata)


def shards(folder: Path, model: Tensors, metadata: Mapping[str, str]) -> Brought:
    """A folder of two shards and their index."""
    names = sorted(model)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-0000{number}-of-00002.safetensors"
        _file(folder / shard, {name: model[name] for name in part}, metadata)
        weight_map |= dict.fromkeys(part, shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return Brought(folder)


def gguf(folder: Path, model: Tensors, metadata: Mapping[str, str]) -> Brought:
    """Q4_0 and Q8_0 in the blocks; what has five dimensions is in the original only."""
    complete = one_file(folder, model, metadata).path
    held = {name: tensor for name, tensor in model.items() if tensor.dim() <= 4}

    def type_of(name: str, tensor: torch.Tensor) -> str:
        if not is_linear_in_block(name, tensor):
            return "F16" if tensor.dim() > 1 else "F32"
        return "Q8_0" if ".v." in name or "to_v" in name else "Q4_0"

    path = write_gguf(folder / "model.gguf", held, type_of)
    return Brought(path, complete if len(held) < len(model) else None)


def _quantized(make: Callable[[Tensors], Tensors]) -> Write:
    return lambda folder, model, metadata: _file(folder / "q.safetensors", make(model), metadata)


def modelopt_folder(folder: Path, model: Tensors, metadata: Mapping[str, str]) -> Brought:
    """NVIDIA ModelOpt's NVFP4, and beside it the configuration that says so."""
    config = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}
    (folder / "hf_quant_config.json").write_text(json.dumps(config))
    return _file(folder / "q.safetensors", MAKERS["ModelOpt"](model), metadata)


#: By name. Diffusers' names are in a test of their own: only WAN's are mapped.
SOURCE_KINDS: dict[str, Write] = {
    "one file": one_file,
    "prefixed": prefixed,
    "full checkpoint": full_checkpoint,
    "shards": shards,
    "GGUF": gguf,
    **{kind: _quantized(make) for kind, make in MAKERS.items()},
    "ModelOpt": modelopt_folder,
}
