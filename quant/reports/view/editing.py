"""What the browser needs to give layers other formats: the formats and the size of each layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...formats import FORMATS, get_format
from ...planning.architectures import Architecture
from ...planning.inventory import Inventory, Layer
from ...planning.plan import possible_bytes
from ...sources.stored_layers import short_dtype
from .numbers import rounded


def edit_of(
    inventory: Inventory,
    architecture: Architecture,
    widget: str,
    rules: str | None = None,
    formats: Iterable[str] = tuple(FORMATS),
) -> dict[str, Any]:
    """Return the ``edit`` part of a view, for the layers in the inventory's order.

    ``widget`` is the name of the node's widget of rule lines, and ``rules`` its text. A format that
    a layer cannot take is not among the sizes of its key.
    """
    offered = list(dict.fromkeys(formats))
    keys: dict[str, dict[str, int | float | None]] = {}
    known: dict[tuple[object, ...], int] = {}
    size_of = []
    for layer in inventory.layers.values():
        alike = _alike(layer, architecture)
        if alike not in known:
            sizes = {name: possible_bytes(layer, name, architecture) for name in offered}
            key = _unused(_key(layer), keys)
            keys[key] = {name: rounded(size) for name, size in sizes.items() if size is not None}
            known[alike] = len(keys) - 1
        size_of.append(known[alike])
    return {
        "widget": widget,
        **({} if rules is None else {"rules": rules}),
        "unquantized": [name for name in offered if not get_format(name).is_quantized],
        "formats": offered,
        "sizes": keys,
        "size_of": size_of,
        "keys": list(keys),
        "bits": {name: rounded(get_format(name).bits) for name in offered},
    }


def _alike(layer: Layer, architecture: Architecture) -> tuple[object, ...]:
    """Return what decides which formats a layer can take, and its size in them."""
    stored = layer.tensor.stored
    return (
        layer.shape,
        layer.kind,
        layer.tensor.dtype,
        stored.label if stored else "",
        tuple((info.nbytes, info.dtype) for info in layer.companions),
        layer.name in architecture.shapes_read,
        layer.name in architecture.rows_read,
    )


def _key(layer: Layer) -> str:
    stored = layer.tensor.stored
    text = "x".join(map(str, layer.shape))
    text += f" {stored.label if stored else short_dtype(layer.tensor.dtype)}"
    return f"{text} +bias" if layer.companions else text


def _unused(key: str, taken: Iterable[str]) -> str:
    """Return a key that is not taken yet."""
    names, number, free = set(taken), 1, key
    while free in names:
        number += 1
        free = f"{key} #{number}"
    return free
