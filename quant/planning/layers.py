"""Layers: tensors grouped by their names, with their positions in the model's lists of blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import PlanError
from ..sources.base import TensorInfo
from .roles import Role

Kind = Literal["linear", "embedding", "conv", "norm", "parameter", "buffer"]
KINDS: tuple[Kind, ...] = ("linear", "embedding", "conv", "norm", "parameter", "buffer")

#: The kind of a matrix, from its layer's name, its shape, and whether it has a bias.
KindOf = Callable[[str, tuple[int, ...], bool], Kind]


@dataclass(frozen=True)
class BlockPosition:
    """The position of a layer in a list of repeated blocks.

    ``container`` is the name of the list (``blocks``). ``index`` counts from 0. ``count`` is the
    number of blocks that the list has in this model.
    """

    container: str
    index: int
    count: int


@dataclass(frozen=True)
class Layer:
    """One module: its weight (or only parameter) and the tensors that belong to it.

    ``role`` is what a Linear layer does beside attention and feed-forward, see `find_roles`.
    """

    name: str
    kind: Kind
    tensor: TensorInfo
    companions: tuple[TensorInfo, ...] = ()
    block: BlockPosition | None = None
    role: Role | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.tensor.shape

    @property
    def nbytes(self) -> int:
        """Bytes of the weight and its companions in the source."""
        return self.tensor.file_bytes + sum(info.file_bytes for info in self.companions)


@dataclass(frozen=True)
class Inventory:
    """All layers of a source by name, in the source's order.

    ``transformer`` is what the ``config`` in the source's header says of the transformer. ComfyUI
    tells a few models apart only by that. ``file`` names the file, and is empty for a MODEL.
    """

    layers: Mapping[str, Layer]
    transformer: Mapping[str, Any] = field(default_factory=dict)
    file: str = field(default="", compare=False)

    def of_kind(self, kind: Kind) -> list[Layer]:
        """Return the layers of one kind."""
        return [layer for layer in self.layers.values() if layer.kind == kind]

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Return a layer's weight shape, or None if there is no such layer."""
        layer = self.layers.get(name)
        return layer.shape if layer else None

    @property
    def containers(self) -> dict[str, int]:
        """The number of blocks of each list of blocks, by the name of the list."""
        found: dict[str, int] = {}
        for layer in self.layers.values():
            if layer.block:
                found[layer.block.container] = layer.block.count
        return found


def group_layers(tensors: Iterable[TensorInfo], kind_of: KindOf) -> dict[str, Layer]:
    """Group tensors into layers: ``X.weight`` with ``X.bias``; any other tensor is its own layer.

    Raises:
        PlanError: a tensor without ``.weight`` has the name of a layer.
    """
    infos = {info.name: info for info in tensors}
    positions = block_positions({name: info.shape for name, info in infos.items()})
    layers: dict[str, Layer] = {}
    for name, info in infos.items():
        base, _, leaf = name.rpartition(".")
        if leaf == "bias" and f"{base}.weight" in infos:
            continue
        is_weight = leaf == "weight" and bool(base)
        layer_name = base if is_weight else name
        companion = infos.get(f"{base}.bias") if is_weight else None
        if layer_name in layers:
            raise PlanError(
                f"the tensors {layers[layer_name].tensor.name} and {name} would both be the layer "
                f"{layer_name}; rename one of them in the source"
            )
        companions = (companion,) if companion else ()
        layers[layer_name] = Layer(
            name=layer_name,
            kind=_kind(layer_name, info, companions, kind_of) if is_weight else _bare_kind(info),
            tensor=info,
            companions=companions,
            block=positions.get(layer_name),
        )
    return layers


def _kind(name: str, info: TensorInfo, companions: tuple[TensorInfo, ...], kind_of: KindOf) -> Kind:
    if not info.dtype.is_floating_point:
        return "buffer"
    if len(info.shape) == 2:
        return kind_of(name, info.shape, bool(companions))
    return "norm" if len(info.shape) <= 1 else "conv"


def _bare_kind(info: TensorInfo) -> Kind:
    return "parameter" if info.dtype.is_floating_point else "buffer"


def block_positions(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, BlockPosition]:
    """Find each layer's position in the outermost list of repeated blocks, from tensor shapes.

    Returns positions by layer name; layers outside of blocks are left out. A list of blocks is a
    name followed by consecutive indices from 0, each with named children that hold at least two
    2-D weights. ``text_embedding.0`` has no such children, so it is not a block.
    """
    weights: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, shape in shapes.items():
        if len(shape) == 2 and name.endswith(".weight"):
            for container, index, rest in _indexed(name):
                child, _, tail = rest.partition(".")
                if tail and not child.isdecimal():
                    weights[container][index].add(rest)
    containers = {
        container: max(indices) + 1
        for container, indices in weights.items()
        if sorted(indices) == list(range(len(indices)))
        and all(len(children) >= 2 for children in indices.values())
    }
    positions: dict[str, BlockPosition] = {}
    for name in shapes:
        for container, index, _rest in _indexed(name):
            if container in containers:
                layer = name.removesuffix(".weight")
                positions[layer] = BlockPosition(container, index, containers[container])
                break  # an inner list does not show how deep in the model a layer is
    return positions


def _indexed(name: str) -> Iterable[tuple[str, int, str]]:
    """Yield (container, index, rest) for each number in a dotted name, outermost first.

    Cosmos writes ``blocks.block3`` where others write ``blocks.3``.
    """
    parts = name.split(".")
    for i in range(1, len(parts) - 1):
        rest = ".".join(parts[i + 1 :])
        named = parts[i].removeprefix(parts[i - 1].removesuffix("s"))
        if parts[i].isdecimal():
            yield ".".join(parts[:i]), int(parts[i]), rest
        elif named.isdecimal() and parts[i - 1].endswith("s"):
            yield ".".join([*parts[:i], parts[i].removesuffix(named)]), int(named), rest
