"""Build ComfyUI's models on the meta device, and tell which of their modules can be quantized."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.text_encoders.llama
import comfy.text_encoders.t5
import torch
from model_configs import TEXT, Published

StateDict = dict[str, torch.Tensor]
#: ACE-Step 1.5 computes with a tensor as it is built. Memory that nobody writes to costs nothing.
NOT_ON_META = ("ACEStep15",)


@dataclass(frozen=True)
class BuiltModel:
    """A model's tensors, its modules by kind, and what the loader does to a state dict."""

    tensors: StateDict
    modules: frozenset[str]
    linears: frozenset[str]
    embeddings: frozenset[str]
    process: Callable[[StateDict], StateDict]


class _DoneError(Exception):
    """Raised when the network is built; what a model does after that needs real weights."""

    def __init__(self, network: torch.nn.Module):
        self.network = network


def build_diffusion_model(published: Published) -> BuiltModel:
    """Build a diffusion model as the loader does."""
    plain, config = _network(published, quantized=False)
    quantized, _ = _network(published, quantized=True)
    return _built(plain, quantized, config.process_unet_state_dict)


def build_text_encoder(model: str) -> BuiltModel:
    """Build a text encoder and check what ComfyUI takes it for."""
    network, config = _TEXT[model]
    place: dict[str, Any] = {"device": "meta", "dtype": torch.bfloat16}
    plain = network(config(), operations=comfy.ops.disable_weight_init, **place)
    quantized = network(config(), operations=comfy.ops.mixed_precision_ops(), **place)
    built = _built(plain, quantized, lambda tensors: tensors)
    for name, shape in TEXT[model].beside.items():
        built.tensors[name] = torch.empty(shape, device="meta")
    found = comfy.sd.detect_te_model(built.tensors)
    if found is None or found.name != TEXT[model].loaded_as:
        raise RuntimeError(f"{model} is detected as {found}, not {TEXT[model].loaded_as}")
    return built


def _network(published: Published, *, quantized: bool) -> tuple[torch.nn.Module, Any]:
    """Return the network and ComfyUI's configuration of it."""
    make = comfy.model_base.BaseModel.__init__

    def stop_when_built(model: Any, *args: Any, **kwargs: Any) -> None:
        make(model, *args, **kwargs)
        raise _DoneError(model.diffusion_model)

    config = getattr(comfy.supported_models, published.loaded_as)(dict(published.config))
    config.set_inference_dtype(torch.bfloat16, None)
    if quantized:
        config.quant_config = {"mixed_ops": True}
    comfy.model_base.BaseModel.__init__ = stop_when_built
    device = "cpu" if published.loaded_as in NOT_ON_META else "meta"
    try:
        config.get_model(_AnyTensor(), "", device=device)
    except _DoneError as done:
        return done.network, config
    finally:
        comfy.model_base.BaseModel.__init__ = make
    raise RuntimeError(f"{published.loaded_as} was not built")


class _AnyTensor(dict[str, torch.Tensor]):
    """A state dict that has every tensor: some classes take a few weights before they are built."""

    def __missing__(self, name: str) -> torch.Tensor:
        return torch.empty(0)


def _built(plain: torch.nn.Module, quantized: torch.nn.Module, process: Any) -> BuiltModel:
    """Tell modules that decode quantized weights by their class in the quantized network."""
    named = dict(quantized.named_modules())
    kinds = {name: type(module).__qualname__ for name, module in named.items()}

    def of(kind: str) -> frozenset[str]:
        return frozenset(n for n, k in kinds.items() if k.endswith(f"MixedPrecisionOps.{kind}"))

    tensors = {name: tensor.to("meta") for name, tensor in plain.state_dict().items()}
    return BuiltModel(tensors, frozenset(named), of("Linear"), of("Embedding"), process)


def _t5_config(name: str) -> Callable[[], dict[str, Any]]:
    path = Path(comfy.text_encoders.t5.__file__).with_name(f"{name}_config_xxl.json")
    return lambda: json.loads(path.read_text())


_TEXT: dict[str, tuple[Callable[..., torch.nn.Module], Callable[[], dict[str, Any]]]] = {
    "t5-xxl": (comfy.text_encoders.t5.T5, _t5_config("t5")),
    "umt5-xxl": (comfy.text_encoders.t5.T5, _t5_config("umt5")),
    "qwen2.5-vl-7b": (comfy.text_encoders.llama.Qwen25_7BVLI, dict),
    "qwen3-4b": (comfy.text_encoders.llama.Qwen3_4B, dict),
}
