"""Build ComfyUI's models on the meta device, and tell which of their modules can be quantized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_base
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from model_configs import TEXT, Published, TextEncoder
from text_networks import network_of

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
    banks: frozenset[str]
    process: Callable[[StateDict], StateDict]


_BANK = "MixedPrecisionOps.MoEExperts"


class _DoneError(Exception):
    """Raised when the network is built; what a model does after that needs real weights."""

    def __init__(self, network: torch.nn.Module):
        self.network = network


def build_diffusion_model(published: Published) -> BuiltModel:
    """Build a diffusion model as the loader does."""
    plain, config = build_network(published, quantized=False)
    quantized, _ = build_network(published, quantized=True)
    return _built(plain, quantized, config.process_unet_state_dict)


def build_text_encoder(model: str) -> BuiltModel:
    """Build a text encoder and check what ComfyUI takes it for."""
    quantized = network_of(model, comfy.ops.mixed_precision_ops())
    plain = network_of(model, _plain_layers())
    encoder = TEXT[model]
    built = _built(plain, quantized, lambda tensors: _as_loaded(tensors, encoder))
    for name, shape in _banks(quantized).items():
        built.tensors[f"{name}.weight"] = torch.empty(shape, device="meta")
    tensors = {_published(name, encoder): tensor for name, tensor in built.tensors.items()}
    for name, shape in encoder.beside.items():
        tensors[name] = torch.empty(shape, device="meta")
    found = comfy.sd.detect_te_model(tensors)
    if found is None or found.name != encoder.loaded_as:
        raise RuntimeError(f"{model} is detected as {found}, not {encoder.loaded_as}")
    return replace(built, tensors=tensors)


def _published(name: str, encoder: TextEncoder) -> str:
    """Return the name in the published file of what the module has under another name."""
    if name == "model.lm_head.weight" and "lm_head.weight" in encoder.beside:
        return "lm_head.weight"
    for theirs, ours in encoder.renamed.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _as_loaded(tensors: StateDict, encoder: TextEncoder) -> StateDict:
    """Rename as ``load_text_encoder_state_dicts`` does; it renames the head without its scales."""
    tensors = dict(tensors)
    if "lm_head.weight" in tensors:
        tensors["model.lm_head.weight"] = tensors.pop("lm_head.weight")
    return comfy.utils.state_dict_prefix_replace(tensors, dict(encoder.renamed))


def _plain_layers() -> Any:
    """Return layers that have their weights as they are built; banks of experts have none."""
    banks = comfy.ops.mixed_precision_ops().MoEExperts
    return type("PlainLayers", (comfy.ops.disable_weight_init,), {"MoEExperts": banks})


def _banks(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    named = network.named_modules()
    return {n: m._orig_shape for n, m in named if type(m).__qualname__.endswith(_BANK)}


def quantized_network(published: Published) -> tuple[torch.nn.Module, Any]:
    """Return the network that the loader fills from a quantized file, and its configuration."""
    network, config = build_network(published, quantized=True)
    for module in network.modules():
        if hasattr(module, "factory_kwargs"):
            module.factory_kwargs["device"] = "meta"
    return network, config


def build_network(
    published: Published, *, quantized: bool, device: str = "meta"
) -> tuple[torch.nn.Module, Any]:
    """Return the network and ComfyUI's configuration of it."""
    make = comfy.model_base.BaseModel.__init__

    def stop_when_built(model: Any, *args: Any, **kwargs: Any) -> None:
        make(model, *args, **kwargs)
        raise _DoneError(model.diffusion_model)

    config = getattr(comfy.supported_models, published.loaded_as)(dict(published.config))
    config.set_inference_dtype(torch.bfloat16, torch.bfloat16 if quantized else None)
    if quantized:
        config.quant_config = {"mixed_ops": True}
    comfy.model_base.BaseModel.__init__ = stop_when_built
    device = "cpu" if published.loaded_as in NOT_ON_META else device
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
    kinds = _kinds(quantized)

    def of(kind: str) -> frozenset[str]:
        return frozenset(n for n, k in kinds.items() if k.endswith(f"MixedPrecisionOps.{kind}"))

    tensors = {name: tensor.to("meta") for name, tensor in plain.state_dict().items()}
    return BuiltModel(
        tensors, frozenset(kinds), of("Linear"), of("Embedding"), of("MoEExperts"), process
    )


def _kinds(network: torch.nn.Module) -> dict[str, str]:
    return {name: type(module).__qualname__ for name, module in network.named_modules()}
