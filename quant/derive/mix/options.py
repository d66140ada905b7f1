"""The formats that each layer of a plan may get in a mix, with their sizes and errors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ...errors import PlanError
from ...formats import WeightFormat, get_format
from ...hardware.usual_formats import MIXED
from ...planning.architectures import Architecture
from ...planning.fallbacks import next_formats
from ...planning.inventory import Inventory, Layer
from ...planning.plan import Plan, PlannedLayer, stored_bytes, why_not
from ...sensitivity.artefact import Sensitivity

#: The formats that a mix chooses from by default.
MIX_FORMATS = MIXED["blackwell"]


@dataclass(frozen=True)
class Member:
    """One layer in one format.

    Attributes:
        bytes: stored bytes.
        bits: nominal bits of all weights.
        cost: the squared error that it adds to the result; None means unknown.
        output_error: the relative error of the layer's own output; None means unknown.
        wider: the number of weights if the format's native product takes more than 4 bits, else 0.
    """

    bytes: int
    bits: float
    cost: float | None
    output_error: float | None = 0.0
    wider: int = 0


@dataclass(frozen=True)
class Option:
    """One format for a group of layers; ``members`` are by layer name."""

    format: str
    members: Mapping[str, Member]

    @property
    def bytes(self) -> int:
        """Bytes of the group's layers in the checkpoint."""
        return sum(member.bytes for member in self.members.values())

    @property
    def bits(self) -> float:
        """Nominal bits of all weights."""
        return sum(member.bits for member in self.members.values())

    @property
    def cost(self) -> float:
        """Summed squared error of the layers; unknown errors are left out."""
        return sum(member.cost or 0.0 for member in self.members.values())

    @property
    def wider(self) -> int:
        """Number of weights whose products take more than 4 bits."""
        return sum(member.wider for member in self.members.values())

    def stays_within(self, layer_error: float) -> bool:
        """Whether the error of the output of every layer is known and at most this large."""
        errors = [member.output_error for member in self.members.values()]
        return all(error is not None and error <= layer_error for error in errors)


@dataclass(frozen=True)
class Group:
    """Layers that get one format because they share an input, and the formats to choose from.

    ``unknown`` names the layers whose error is unknown in every quantized format of the mix. A
    group with such layers has only one option, the most precise format. ``is_offered`` is False if
    the layers keep the format of the plan: no other can store their shapes, or a rule of the user
    decides.
    """

    layers: tuple[str, ...]
    options: tuple[Option, ...]
    unknown: tuple[str, ...] = ()
    is_offered: bool = True


def find_groups(
    base: Plan,
    inventory: Inventory,
    sensitivity: Sensitivity,
    formats: Sequence[str],
    pinned: Collection[str] = (),
) -> list[Group]:
    """Return the groups of Linear layers that ``base`` quantizes, in the plan's order.

    The options of a group are the formats that can store all of its layers and whose error is
    known for all of them. A format that cannot gives way to the smallest format after it that can.
    Unquantized formats have no error. If there is none either, the layers keep the format of the
    plan. So do ``pinned`` layers.

    Raises:
        PlanError: no format is given, the plan quantizes no Linear layer, or the errors of all
            layers are unknown.
        FormatError: a format is unknown.
    """
    allowed = [get_format(name) for name in dict.fromkeys(formats)]
    if not allowed:
        raise PlanError(f"a mix needs formats to choose from, e.g. {', '.join(MIX_FORMATS)}")
    mixed = [la for la in base.quantized() if la.kind == "linear"]
    if not mixed:
        raise PlanError(
            f"recipe {base.recipe.name} quantizes no Linear layer, so there is nothing to mix; "
            "start from a recipe that quantizes layers"
        )
    if not any(_is_known(la.name, sensitivity, allowed) for la in mixed):
        raise PlanError(
            f"the sensitivity holds the error of none of the {len(mixed)} layers in "
            f"{', '.join(f.name for f in allowed)}; measure this model with these formats"
        )
    groups: list[Group] = []
    planned = {layer.name: layer for layer in mixed}
    for names in sensitivity.by_input(planned):
        groups += [
            _only_option(inventory.layers[name], get_format(planned[name].format), sensitivity)
            for name in names
            if name in pinned
        ]
        members = [planned[name] for name in names if name not in pinned]
        groups += _groups(members, inventory, sensitivity, allowed, base.architecture)
    return groups


def member(layer: Layer, fmt: WeightFormat, sensitivity: Sensitivity) -> Member:
    """Return the size and error of a layer in a format."""
    weights = prod(layer.shape)
    quantized = fmt.is_quantized
    # Quantized formats count nominal bits, so that 4.5 bits are in reach for all shapes.
    bits = fmt.bits * weights if quantized else fmt.nbytes(layer.shape, layer.tensor.dtype) * 8.0
    cost = sensitivity.cost(layer.name, fmt.name) if quantized else 0.0
    errors = sensitivity.candidates(layer.name).get(fmt.name)
    output_error = (errors.w4a4 if errors else None) if quantized else 0.0
    wider = 0 if fmt.multiplies_4_bits else weights
    return Member(stored_bytes(layer, fmt), bits, cost, output_error, wider)


def _is_known(name: str, sensitivity: Sensitivity, allowed: Iterable[WeightFormat]) -> bool:
    quantized = [fmt for fmt in allowed if fmt.is_quantized]
    return not quantized or any(sensitivity.cost(name, fmt.name) is not None for fmt in quantized)


def _groups(
    members: list[PlannedLayer],
    inventory: Inventory,
    sensitivity: Sensitivity,
    allowed: Sequence[WeightFormat],
    architecture: Architecture,
) -> list[Group]:
    if not members:
        return []
    layers = [inventory.layers[planned.name] for planned in members]
    possible = [_possible(fmt, layers, architecture) for fmt in allowed]
    fitting = list({fmt.name: fmt for fmt in possible if fmt}.values())
    if not fitting:
        return [
            _only_option(inventory.layers[la.name], get_format(la.format), sensitivity)
            for la in members
        ]
    return [_group(layers, fitting, sensitivity)]


def _possible(
    fmt: WeightFormat, layers: Sequence[Layer], architecture: Architecture
) -> WeightFormat | None:
    """Return a format, or the smallest format after it that can store all of the layers."""
    for name in (fmt.name, *next_formats(fmt.name)):
        candidate = get_format(name)
        if not any(why_not(layer, candidate, architecture) for layer in layers):
            return candidate
    return None


def _only_option(layer: Layer, fmt: WeightFormat, sensitivity: Sensitivity) -> Group:
    option = Option(fmt.name, {layer.name: member(layer, fmt, sensitivity)})
    return Group((layer.name,), (option,), is_offered=False)


def _group(
    layers: Sequence[Layer], formats: Sequence[WeightFormat], sensitivity: Sensitivity
) -> Group:
    names = tuple(layer.name for layer in layers)
    options = [
        Option(fmt.name, {la.name: member(la, fmt, sensitivity) for la in layers})
        for fmt in formats
    ]
    unknown = tuple(name for name in names if not _is_known(name, sensitivity, formats))
    known = [o for o in options if all(m.cost is not None for m in o.members.values())]
    if not known:
        precise = max(formats, key=lambda fmt: fmt.bits)
        known = [option for option in options if option.format == precise.name]
        unknown = unknown or names
    return Group(names, tuple(known), unknown)
