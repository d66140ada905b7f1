"""A GGUF as a map of what is sensitive: the bits its maker gave each layer become a recipe."""

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
    """What becomes of a GGUF's types.

    A quantized type of at most ``bits_limit`` bits, by its name (Q4_0, Q4_K and IQ4_XS have 4),
    becomes ``nvfp4``, a wider one ``higher``. F32 stays fp32, F16 fp16, BF16 bf16.

    Attributes:
        bits_limit: 1 to 8.
        higher: a format name.
        edge_blocks: how many blocks at each end get ``edge_format`` where they were quantized.
        edge_format: a format name.

    Raises:
        RecipeError: a number out of range, or an unknown format.
    """

    bits_limit: int = 4
    higher: str = "float8_e4m3fn"
    edge_blocks: int = 0
    edge_format: str = "bf16"

    def __post_init__(self) -> None:
        if not 1 <= self.bits_limit <= 8:
            raise RecipeError(f"the bits limit must be from 1 to 8, not {self.bits_limit}")
        if self.edge_blocks < 0:
            raise RecipeError(f"there cannot be {self.edge_blocks} edge blocks")
        for name in (self.higher, self.edge_format):
            try:
                get_format(name)
            except FormatError as error:
                raise RecipeError(str(error)) from error

    def choice(self, tensor: GgufTensor, layer: Layer) -> tuple[str, str]:
        """Return a layer's format, and why."""
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
    """Return a recipe that names every 2-D weight of a GGUF, in ComfyUI's names.

    Anything else (norms, biases, convolutions), embeddings that the GGUF quantizes, and what it
    lacks stay as the source of the conversion has them.

    Args:
        path: the GGUF; no weights are read, so types need not be ones that can be decoded.
        mapping: what becomes of its types.
        target: the model the recipe is for. Layers it does not have are left out and named in the
            notes, and so are Linears of it that the GGUF lacks.

    Raises:
        SourceError: the file cannot be read.
        RecipeError: it holds no 2-D weights, or none that the target has.
    """
    mapping = mapping or GgufMapping()
    layers = dict(_layers(path))
    if not layers:
        raise RecipeError(f"{path} holds no 2-D weights to take a recipe from")
    notes: list[str] = []
    if target is not None:
        unknown = [name for name in layers if name not in target.layers]
        layers = {name: layers[name] for name in layers if name in target.layers}
        if not layers:
            raise RecipeError(
                f"{path} is of another model: it has {unknown[0]}, for example, and this has not"
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
    # types without blocks other than floats are no weights
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
        f", {mapping.edge_blocks} blocks at each end {mapping.edge_format}"
        if mapping.edge_blocks
        else ""
    )
    return (
        f"The layer choices of a GGUF ({', '.join(types)}): up to {mapping.bits_limit} bits "
        f"{_FOUR_BITS}, more {mapping.higher}{edge}."
    )


def _coverage_notes(
    unknown: list[str], layers: Mapping[str, tuple[GgufTensor, Layer]], target: Inventory
) -> Iterator[str]:
    if unknown:
        yield (
            f"{len(unknown)} layers of the GGUF are not in the model and left out, "
            f"e.g. {unknown[0]}"
        )
    missing = [layer.name for layer in target.of_kind("linear") if layer.name not in layers]
    if missing:
        yield (
            f"{len(missing)} Linears of the model are not in the GGUF and stay as they are, "
            f"e.g. {missing[0]}"
        )
