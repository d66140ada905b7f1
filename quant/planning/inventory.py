"""The inventory of a source: its layers, and the kind of module that ComfyUI loads each into."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..files.json_file import parse_object
from ..formats import get_format
from ..sources.base import TensorInfo, TensorSource
from .architectures import Architecture, detect_architecture
from .architectures.known_models import KnownModel, known_model
from .layers import (
    KINDS,
    BlockPosition,
    Inventory,
    Kind,
    Layer,
    block_positions,
    group_layers,
)
from .matrices import kind_by_name
from .roles import find_roles

# Dimensions of a bank of experts.
_BANK = 3

__all__ = [
    "KINDS",
    "BlockPosition",
    "Inventory",
    "Kind",
    "Layer",
    "block_positions",
    "inventory_of",
    "take_inventory",
]


def take_inventory(source: TensorSource) -> Inventory:
    """Group a source's tensors into layers."""
    inventory = inventory_of(
        source.tensors.values(), linear_layers=source.linear_layers, metadata=source.metadata
    )
    file = source.description if source.paths and source.linear_layers is None else ""
    return replace(inventory, file=file)


def inventory_of(
    tensors: Iterable[TensorInfo],
    *,
    linear_layers: Collection[str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Inventory:
    """Group tensors into layers, each with the kind of module that ComfyUI loads it into.

    ``linear_layers`` names the layers that ComfyUI builds with its own Linear, where that is
    known. Otherwise the known modules of the recognised model decide, and for all other matrices
    their names.

    Raises:
        PlanError: a tensor without ``.weight`` has the name of a layer.
    """
    by_name = Inventory(group_layers(tensors, kind_by_name), _transformer(metadata or {}))
    architecture = detect_architecture(by_name)
    known = known_model(architecture.id)
    layers = {
        name: _readable(_settled(layer, linear_layers, known), architecture)
        for name, layer in by_name.layers.items()
    }
    return replace(by_name, layers=_with_roles(layers))


def _with_roles(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    roles = find_roles(
        {name: layer.shape[-2:] for name, layer in layers.items()},  # of a bank: of one expert
        [name for name, layer in layers.items() if layer.kind == "linear"],
        {name: layer.block.container for name, layer in layers.items() if layer.block},
    )
    return {
        name: replace(la, role=roles[name]) if name in roles else la for name, la in layers.items()
    }


def _settled(
    layer: Layer, linear_layers: Collection[str] | None, known: KnownModel | None
) -> Layer:
    """Return a layer with its final kind. Only matrices and banks can be other than they look."""
    if known and known.is_bank(layer.name) and len(layer.shape) == _BANK:
        return replace(layer, kind="linear")
    if len(layer.shape) != 2 or not layer.tensor.name.endswith(".weight"):
        return layer
    if layer.kind == "buffer":
        return layer
    kind = (known.kind_of(layer.name) if known else None) or layer.kind
    if linear_layers is not None:
        is_linear = layer.name in linear_layers
        kind = "linear" if is_linear else ("embedding" if kind == "embedding" else "parameter")
    if known and known.is_rewritten(layer.name):
        kind = "parameter"
    return replace(layer, kind=kind)


def _readable(layer: Layer, architecture: Architecture) -> Layer:
    """Return a layer whose stored format may be kept only if ComfyUI can read it there.

    Other tools quantize any matrix, also those that ComfyUI does not decode, and those by whose
    shape it recognises the model.
    """
    stored = layer.tensor.stored
    if stored is None or not stored.format:
        return layer
    fmt = get_format(stored.format)
    shape = fmt.tensor_specs(layer.shape, layer.tensor.dtype)["weight"].shape
    undecoded = layer.kind in ("parameter", "embedding") and layer.kind not in fmt.kinds
    hidden = layer.name in architecture.shapes_read and shape != layer.shape
    hidden |= layer.name in architecture.rows_read and shape[:1] != layer.shape[:1]
    if not undecoded and not hidden:
        return layer
    return replace(layer, tensor=replace(layer.tensor, stored=replace(stored, format="")))


def _transformer(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what the header's ``config`` says of the transformer, as ComfyUI reads it."""
    transformer = parse_object(metadata.get("config")).get("transformer")
    return transformer if isinstance(transformer, dict) else {}
