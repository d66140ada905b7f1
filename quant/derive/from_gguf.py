"""Derive a recipe from a GGUF: the bits of each layer show how sensitive its maker found it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import FormatError, RecipeError
from ..formats import get_format
from ..planning.inventory import Inventory, Layer, inventory_of
from ..planning.recipe import Recipe, Rule
from ..sources import TensorInfo, find_naming, find_prefix
from ..sources.gguf_header import GgufTensor, read_gguf_header
from .exact_recipe import exact_pattern
from .overrides import DerivedRecipe

_FLOATS = {"F64": "fp32", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_FOUR_BITS = "nvfp4"


@dataclass(frozen=True)
class GgufMapping:
    """Which format each type of a GGUF becomes.

    Quantized types of at most ``bits_limit`` bits become ``nvfp4``, and wider ones ``higher``. The
    name of a type gives its bits (4 for Q4_0, Q4_K and IQ4_XS). F32 becomes fp32, F16 fp16 and
    BF16 bf16.

    Attributes:
        bits_limit: 1 to 8.
        higher: a format name.
        edge_blocks: how many blocks at each end get ``edge_format`` if the GGUF quantizes them.
        edge_format: a format name.

    Raises:
        RecipeError: a number is out of range, or a format is unknown.
    """

    bits_limit: int = 4
    higher: str = "float8_e4m3fn"
    edge_blocks: int = 0
    edge_format: str = "bf16"

    def __post_init__(self) -> None:
        if not 1 <= self.bits_limit <= 8:
            raise RecipeError(f"the bits limit must be from 1 to 8, not {self.bits_limit}")
        if self.edge_blocks < 0:
            raise RecipeError(
                f"the number of edge blocks must be 0 or more, not {self.edge_blocks}"
            )
        for name in (self.higher, self.edge_format):
            try:
                get_format(name)
            except FormatError as error:
                raise RecipeError(str(error)) from error

    def choice(self, tensor: GgufTensor, layer: Layer) -> tuple[str, str]:
        """Return a layer's format and the reason for it."""
        if not tensor.is_quantized:
            return _FLOATS.get(tensor.type, "keep"), f"{tensor.type} in the GGUF"
        if self._is_edge(layer):
            return self.edge_format, f"edge block, {tensor.type} in the GGUF"
        fmt = _FOUR_BITS if tensor.bits <= self.bits_limit else self.higher
        return fmt, f"{tensor.type} in the GGUF"

    def _is_edge(self, layer: Layer) -> bool:
        block = layer.block
        if block is None:
            return False
        return min(block.index, block.count - 1 - block.index) < self.edge_blocks


def recipe_from_gguf(
    path: Path, mapping: GgufMapping | None = None, target: Inventory | None = None
) -> DerivedRecipe:
    """Return a recipe that names every 2-D weight of a GGUF, under ComfyUI's names.

    The recipe does not name norms, biases, convolutions, and embeddings that the GGUF quantizes.
    They stay as they are in the source of the conversion, and so do layers that the GGUF lacks.

    Args:
        path: the GGUF. Its weights are not read, so it may have types that cannot be decoded.
        mapping: which format each type becomes.
        target: the model that the recipe is for. The recipe leaves out layers that this model
            lacks. The notes name them, and the Linear layers that the GGUF lacks.

    Raises:
        SourceError: the file cannot be read.
        RecipeError: the file holds no 2-D weights, or none that the target has.
    """
    mapping = mapping or GgufMapping()
    layers = dict(_layers(path))
    if not layers:
        raise RecipeError(f"{path} holds no 2-D weights, so no recipe can be derived from it")
    notes: list[str] = []
    if target is not None:
        unknown = [name for name in layers if name not in target.layers]
        layers = {name: layers[name] for name in layers if name in target.layers}
        if not layers:
            raise RecipeError(
                f"{path} is of another model: this model does not have any of its layers, such as "
                f"{unknown[0]}; use a GGUF of the same model"
            )
        notes += _coverage_notes(unknown, layers, target)
    rules = _rules(layers, mapping)
    recipe = Recipe(
        name=f"from {path.name}",
        description=_describe(layers, mapping),
        rules=rules,
    )
    return DerivedRecipe(recipe, tuple(notes))


def _layers(path: Path) -> Iterator[tuple[str, tuple[GgufTensor, Layer]]]:
    """Yield the 2-D weights by layer name, as ComfyUI names them."""
    header = read_gguf_header(path)
    # unquantized types other than floats are not weights
    dtypes = {
        name: torch.bfloat16 if tensor.is_quantized or tensor.type in _FLOATS else torch.int32
        for name, tensor in header.tensors.items()
    }
    prefix = find_prefix({n: TensorInfo(n, t.shape, dtypes[n]) for n, t in header.tensors.items()})
    plain = {n.removeprefix(prefix): t for n, t in header.tensors.items() if n.startswith(prefix)}
    naming = find_naming(plain)
    named = {naming.to_comfy(n) if naming else n: tensor for n, tensor in plain.items()}
    inventory = inventory_of(
        TensorInfo(name, tensor.shape, dtypes[tensor.name]) for name, tensor in named.items()
    )
    for name, layer in inventory.layers.items():
        if layer.kind in ("linear", "embedding"):
            yield name, (named[layer.tensor.name], layer)


def _rules(
    layers: Mapping[str, tuple[GgufTensor, Layer]], mapping: GgufMapping
) -> tuple[Rule, ...]:
    patterns: dict[tuple[str, str], list[str]] = {}
    for name, (tensor, layer) in layers.items():
        fmt, why = mapping.choice(tensor, layer)
        if layer.kind == "linear" or not get_format(fmt).is_quantized:  # no embeddings
            patterns.setdefault((fmt, why), []).append(exact_pattern(name))
    return tuple(
        Rule(pattern=tuple(names), format=fmt, why=why) for (fmt, why), names in patterns.items()
    )


def _describe(layers: Mapping[str, tuple[GgufTensor, Layer]], mapping: GgufMapping) -> str:
    types = sorted({tensor.type for tensor, _ in layers.values()})
    edge = (
        f", {mapping.edge_format} in {mapping.edge_blocks} blocks at each end"
        if mapping.edge_blocks
        else ""
    )
    return (
        f"Formats chosen by the bits of a GGUF ({', '.join(types)}): {_FOUR_BITS} up to "
        f"{mapping.bits_limit} bits, {mapping.higher} above{edge}."
    )


def _coverage_notes(
    unknown: list[str], layers: Mapping[str, tuple[GgufTensor, Layer]], target: Inventory
) -> Iterator[str]:
    if unknown:
        yield (
            f"{len(unknown)} layers of the GGUF are not in the model, so the recipe leaves them "
            f"out, e.g. {unknown[0]}"
        )
    missing = [layer.name for layer in target.of_kind("linear") if layer.name not in layers]
    if missing:
        yield (
            f"{len(missing)} Linear layers of the model are not in the GGUF and stay as they are, "
            f"e.g. {missing[0]}"
        )
