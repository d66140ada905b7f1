"""Plans: a recipe resolved against one model, with each layer's format, reason and size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import PlanError
from ..files.write import write_json
from ..formats import WeightFormat, for_shape, get_format
from ..layer_names import describe_unknown, nearest_names
from ..sources.base import dtype_name
from .architectures import Architecture, detect_architecture
from .completeness import require_whole
from .fallbacks import next_formats
from .inventory import Inventory, Layer
from .loadable import needed_comfyui, require_loadable, version_notes
from .presets import require_architecture, with_preset
from .recipe import USER_RULE, Recipe, Rule

#: Bytes of a stored ``input_scale``.
INPUT_SCALE_BYTES = 4
_NAMED = 3
# Layer names by the format that they cannot have, the one they get instead (None: they stay as they
# are), and the reason.
Refused = dict[tuple[str, str | None, str], list[str]]


@dataclass(frozen=True)
class PlannedLayer:
    """What happens to one layer. Sizes are in bytes and include bias, scales and marker."""

    name: str
    kind: str
    shape: tuple[int, ...]
    source_dtype: str
    format: str
    reason: str
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Plan:
    """What a conversion will do to each layer.

    ``warnings`` name rules that matched nothing, layers that cannot get the format that a rule of
    the user gives them, and layers that stay as they are because no format in question is possible.
    ``blocks`` holds the number of blocks of each list of blocks, by its name.
    """

    recipe: Recipe
    architecture: Architecture
    layers: tuple[PlannedLayer, ...]
    warnings: tuple[str, ...] = ()
    blocks: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes_before(self) -> int:
        """Bytes of all tensors in the source."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Expected bytes of all tensors in the checkpoint."""
        return sum(layer.bytes_after for layer in self.layers)

    def counts(self, kind: str | None = "linear") -> dict[str, int]:
        """Return the number of layers per format, most frequent first; None: all kinds."""
        chosen = Counter(la.format for la in self.layers if kind is None or la.kind == kind)
        return dict(chosen.most_common())

    @property
    def needs_comfyui(self) -> str:
        """The first ComfyUI that loads the checkpoint; empty if every supported one does."""
        return needed_comfyui((la.format for la in self.layers), self.architecture)

    @property
    def version_notes(self) -> tuple[str, ...]:
        """What to say about the ComfyUI that loads the checkpoint."""
        return version_notes((la.format for la in self.layers), self.architecture)

    def quantized(self) -> list[PlannedLayer]:
        """Return the layers that get a quantized format."""
        return [layer for layer in self.layers if get_format(layer.format).is_quantized]

    def require_layers(self, inventory: Inventory, origin: str = "this model") -> None:
        """Check that the plan was made for these layers.

        Raises:
            PlanError: the layers differ; the message names some differences.
        """
        layers = inventory.layers
        odd = sorted(set(layers) ^ {planned.name for planned in self.layers})
        if odd:
            examples = ", ".join(odd[:_NAMED]) + (" and more" if len(odd) > _NAMED else "")
            raise PlanError(
                f"the plan was made for another model: {examples} exist in only one of the two; "
                f"make the plan again from {origin}"
            )
        for planned in self.layers:
            if layers[planned.name].shape != planned.shape:
                raise PlanError(
                    f"the plan was made for another model: {planned.name} is {planned.shape} "
                    f"in the plan and {layers[planned.name].shape} in {origin}; "
                    f"make the plan again from {origin}"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-serialisable data."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "architecture": asdict(self.architecture),
            "layers": [asdict(layer) for layer in self.layers],
            "warnings": list(self.warnings),
            "needs_comfyui": self.needs_comfyui,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }

    def save(self, path: Path) -> None:
        """Write the plan as JSON. Raises `FileError` if it cannot be written."""
        write_json(path, self.to_json(), indent=1)


def make_plan(recipe: Recipe, inventory: Inventory, *, any_architecture: bool = False) -> Plan:
    """Resolve a recipe against a model.

    Raises:
        IncompleteError: the file lacks a part of its model.
        RecipeError: the recipe is for other architectures (unless ``any_architecture``).
        PlanError: ComfyUI cannot load this model, or the oldest one in question cannot load one of
            the formats; the recipe quantizes nothing although it names quantized formats; a rule of
            the user matches no layer; or a rule that is not optional names a layer that the model
            does not have.
    """
    require_whole(inventory)
    architecture = detect_architecture(inventory)
    if architecture.problem:
        raise PlanError(f"this model is {architecture.title}: {architecture.problem}")
    recipe = with_preset(recipe, architecture)
    if not any_architecture:
        require_architecture(recipe, architecture)
    _require_names(recipe, inventory)
    used: Counter[int] = Counter()
    refused: Refused = {}
    planned = tuple(
        _plan_layer(layer, recipe, architecture, used, refused)
        for layer in inventory.layers.values()
    )
    warnings = [_refusal_warning(names, *why) for why, names in refused.items()]
    warnings += _unmatched_rules(recipe, inventory, used)
    require_loadable(recipe, architecture, {la.name: la.format for la in planned})
    plan = Plan(recipe, architecture, planned, tuple(warnings), inventory.containers)
    wanted = recipe.formats()
    if not plan.quantized() and any(get_format(name).is_quantized for name in wanted):
        raise PlanError(
            f"recipe {recipe.name} quantizes no layer of this model, which is {architecture}: "
            + ("; ".join(warnings) or "its rules match no layer")
        )
    return plan


def stored_bytes(layer: Layer, fmt: WeightFormat) -> int:
    """Return the bytes of a layer in the checkpoint: weight, scales, marker and bias."""
    fmt = for_shape(fmt, layer.shape)
    size = fmt.nbytes(layer.shape, layer.tensor.dtype)
    size += sum(info.nbytes for info in layer.companions)
    if fmt.marker is not None:
        size += len(fmt.marker_bytes(layer.shape))
        if fmt.activation_divisor is not None and layer.kind == "linear":
            size += INPUT_SCALE_BYTES
    return size


def possible_bytes(layer: Layer, name: str, architecture: Architecture) -> int | None:
    """Return the bytes that a layer would take in a format, or None if that is impossible."""
    fmt = _or_as_stored(layer, name)
    stored = layer.tensor.stored
    taken_over = stored is not None and stored.format == fmt.name
    if not taken_over and why_not(layer, fmt, architecture):
        return None
    return stored_bytes(layer, fmt)


def decide_format(recipe: Recipe, layer: Layer) -> tuple[str, int | None]:
    """Return the format that a recipe gives a layer, and the index of the rule that decides.

    If the format cannot store the layer's shape, the next one that can takes its place. The index
    is None if no rule matches and the default decides.
    """
    wanted, fallback, number = _wanted(recipe, layer)
    if _unsuited(layer, get_format(wanted)) is None:
        return wanted, number
    instead = _next_fitting(layer, wanted, fallback)
    return (wanted if instead is None else instead.name), number


def _wanted(recipe: Recipe, layer: Layer) -> tuple[str, str | None, int | None]:
    """Return the format that a recipe names for a layer, its fallback, and the rule's index."""
    for number, rule in enumerate(recipe.rules):
        if rule.matches(layer):
            return rule.format, rule.fallback, number
    if get_format(recipe.default).is_quantized and layer.kind != "linear":
        return "keep", None, None  # like a rule without kinds, it is for Linear layers
    return recipe.default, None, None


def _next_fitting(
    layer: Layer, wanted: str, fallback: str | None, architecture: Architecture | None = None
) -> WeightFormat | None:
    """Return the format that takes the place of one that cannot store a layer, or None.

    Without a fallback, only a shape can be the reason: a layer whose kind ComfyUI does not load
    quantized, or that is not a weight, stays as it is.
    """
    if fallback is None and _unsuited_kind(layer, get_format(wanted)):
        return None
    for name in next_formats(wanted, fallback):
        fmt = _or_as_stored(layer, name)
        if not (why_not(layer, fmt, architecture) if architecture else _unsuited(layer, fmt)):
            kept = _or_as_stored(layer, "keep")
            return kept if kept.is_quantized and kept.bits <= fmt.bits else fmt
    return None


def _plan_layer(
    layer: Layer,
    recipe: Recipe,
    architecture: Architecture,
    used: Counter[int],
    refused: Refused,
) -> PlannedLayer:
    name, fallback, number = _wanted(recipe, layer)
    rule = None if number is None else recipe.rules[number]
    fmt, reason = _or_as_stored(layer, name), f"no rule matches: {name}"
    if number is not None and rule is not None:
        used[number] += 1
        reason = f"rule {number + 1}: {rule.describe(layer.name)}"
    if fmt.name != name:
        reason = f"{reason}, which is {fmt.name}"
    stored = layer.tensor.stored
    taken_over = stored is not None and stored.format == fmt.name
    refusal = None if taken_over else why_not(layer, fmt, architecture)
    if refusal:
        instead = _next_fitting(layer, fmt.name, fallback, architecture)
        is_asked_for = rule is not None and rule.why == USER_RULE and fallback is None
        if instead is None or is_asked_for:
            why = (fmt.name, instead.name if instead else None, refusal)
            refused.setdefault(why, []).append(layer.name)
        reason = _changed_reason(reason, fmt, instead, refusal)
        fmt = instead or _or_as_stored(layer, "keep")
    return PlannedLayer(
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        source_dtype=stored.label if stored else dtype_name(layer.tensor.dtype),
        format=fmt.name,
        reason=reason,
        bytes_before=layer.nbytes,
        bytes_after=stored_bytes(layer, fmt),
    )


def _changed_reason(
    reason: str, fmt: WeightFormat, instead: WeightFormat | None, refusal: str
) -> str:
    if instead is None:
        return f"kept, because {fmt.name} is not possible: {refusal}"
    return f"{reason}; {instead.name}, because {fmt.name} is not possible: {refusal}"


def _refusal_warning(names: list[str], fmt: str, instead: str | None, refusal: str) -> str:
    shown = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    one = len(names) == 1
    if instead:
        become = f"{'becomes' if one else 'become'} {instead}"
    else:
        become = "stays as it is" if one else "stay as they are"
    return f"{shown}{more} {become} instead of {fmt}: {refusal}"


def _or_as_stored(layer: Layer, name: str) -> WeightFormat:
    """Return a format by name; for ``keep``, the format that the layer has in the source."""
    stored = layer.tensor.stored
    return get_format(stored.format if name == "keep" and stored and stored.format else name)


def why_not(layer: Layer, fmt: WeightFormat, architecture: Architecture) -> str | None:
    """Return why a layer of a model cannot be stored in a format, or None if it can."""
    return _unsuited(layer, fmt) or _would_hide_shape(layer, fmt, architecture)


def _would_hide_shape(layer: Layer, fmt: WeightFormat, architecture: Architecture) -> str | None:
    if layer.name not in (*architecture.shapes_read, *architecture.rows_read):
        return None
    stored = fmt.tensor_specs(layer.shape, layer.tensor.dtype)["weight"].shape
    if layer.name in architecture.shapes_read and stored != layer.shape:
        return "ComfyUI recognises the model by its shape, which this format packs"
    if stored[:1] != layer.shape[:1]:
        return "ComfyUI recognises the model by its number of rows, which this format pads"
    return None


def _require_names(recipe: Recipe, inventory: Inventory) -> None:
    """Refuse rules that name layers the model lacks. Globs may match nothing.

    `_unmatched_rules` checks rules that a user wrote as a line.
    """
    for rule in recipe.rules:
        unknown = [name for name in rule.layer_names() if name not in inventory.layers]
        is_line = rule.why == USER_RULE and isinstance(rule.pattern, str)
        if unknown and not rule.optional and not is_line:
            raise PlanError(
                f"recipe {recipe.name} gives {rule.format} to layers that this model does not "
                f"have: {describe_unknown(unknown, inventory.layers)}"
            )


def _unsuited(layer: Layer, fmt: WeightFormat) -> str | None:
    return _unsuited_kind(layer, fmt) or for_shape(fmt, layer.shape).refusal(layer.shape)


def _unsuited_kind(layer: Layer, fmt: WeightFormat) -> str | None:
    if layer.kind == "buffer" and fmt.name != "keep":
        return f"it holds {layer.tensor.dtype}, so it is not a weight"
    if fmt.is_quantized and layer.kind not in fmt.kinds:
        kinds = " and ".join(fmt.kinds)
        return f"its kind is {layer.kind}; ComfyUI loads {fmt.name} only for {kinds} layers"
    if fmt.is_quantized and 0 in layer.shape:
        return f"its shape is {layer.shape}, so it is empty"
    return None


def _unmatched_rules(recipe: Recipe, inventory: Inventory, used: Mapping[int, int]) -> list[str]:
    """Return warnings for rules that decide nothing.

    Raises:
        PlanError: a rule of the user matches no layer.
    """
    warnings = []
    for number, rule in enumerate(recipe.rules):
        if used.get(number):
            continue
        shadowed = [layer.name for layer in inventory.layers.values() if rule.matches(layer)]
        if shadowed:
            warnings.append(
                f"rule {number + 1} ({rule.describe()}) decides nothing: "
                f"earlier rules match all its {len(shadowed)} layers"
            )
        elif rule.why == USER_RULE:
            raise PlanError(_no_match(rule, inventory))
        elif rule.optional or not recipe.architectures:
            continue  # a recipe for many models has rules for layers that some models lack
        else:
            warnings.append(f"rule {number + 1} ({rule.describe()}) matches no layer")
    return warnings


def _no_match(rule: Rule, inventory: Inventory) -> str:
    named = [la for la in inventory.layers.values() if rule.matches_name(la.name)]
    if named:
        kinds = ", ".join(sorted({layer.kind for layer in named}))
        return (
            f"rule {rule.describe()} matches only names of layers that it does not apply to "
            f"({len(named)} of kind {kinds}, e.g. {named[0].name}){_block_hint(rule, inventory)}"
        )
    patterns = (rule.pattern,) if isinstance(rule.pattern, str) else rule.pattern
    near = [n for p in patterns for n in nearest_names(p, inventory.layers)]
    hint = f"; the nearest names are {', '.join(near)}" if near else ""
    return f"rule {rule.describe()} matches no layer of this model{hint}"


def _block_hint(rule: Rule, inventory: Inventory) -> str:
    if rule.blocks is None:
        return ""
    lists = ", ".join(f"{name}.0 to {n - 1}" for name, n in inventory.containers.items())
    return f"; the blocks of this model: {lists or 'none'}"
