"""Plans: a recipe resolved against one model, with each layer's format, reason and size."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import PlanError
from ..formats import WeightFormat, get_format
from ..layer_names import describe_unknown, nearest_names
from ..sources.base import dtype_name
from .architectures import Architecture, detect_architecture
from .inventory import Inventory, Layer
from .presets import require_architecture, with_preset
from .recipe import USER_RULE, Recipe, Rule

#: Bytes of a stored ``input_scale``.
INPUT_SCALE_BYTES = 4
_NAMED = 3


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

    ``warnings`` name rules that matched nothing, and layers that cannot get the format that a rule
    gives them. ``blocks`` holds the number of blocks of each list of blocks, by its name.
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
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        path.write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")


def make_plan(recipe: Recipe, inventory: Inventory, *, any_architecture: bool = False) -> Plan:
    """Resolve a recipe against a model.

    Raises:
        RecipeError: the recipe is for other architectures (unless ``any_architecture``).
        PlanError: ComfyUI cannot load this model, the recipe quantizes nothing although it names
            quantized formats, a rule of the user matches no layer, or a rule that is not optional
            names a layer that the model does not have.
    """
    architecture = detect_architecture(inventory)
    if architecture.problem:
        raise PlanError(f"this model is {architecture.title}: {architecture.problem}")
    recipe = with_preset(recipe, architecture)
    if not any_architecture:
        require_architecture(recipe, architecture)
    _require_names(recipe, inventory)
    used: Counter[int] = Counter()
    refused: dict[tuple[str, str], list[str]] = {}
    planned = tuple(
        _plan_layer(layer, recipe, architecture, used, refused)
        for layer in inventory.layers.values()
    )
    warnings = [_refusal_warning(names, *why) for why, names in refused.items()]
    warnings += _unmatched_rules(recipe, inventory, used)
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

    The index is None if no rule matches and the default decides.
    """
    for number, rule in enumerate(recipe.rules):
        if rule.matches(layer):
            return _ruled(layer, rule).name, number
    if get_format(recipe.default).is_quantized and layer.kind != "linear":
        return "keep", None  # like a rule without kinds, a quantized default is for Linear layers
    return recipe.default, None


def _plan_layer(
    layer: Layer,
    recipe: Recipe,
    architecture: Architecture,
    used: Counter[int],
    refused: dict[tuple[str, str], list[str]],
) -> PlannedLayer:
    name, number = decide_format(recipe, layer)
    fmt, reason = _or_as_stored(layer, name), f"no rule matches: {name}"
    if number is not None:
        used[number] += 1
        reason = f"rule {number + 1}: {recipe.rules[number].describe(layer.name)}"
    if fmt.name != name:
        reason = f"{reason}, which is {fmt.name}"
    stored = layer.tensor.stored
    taken_over = stored is not None and stored.format == fmt.name
    refusal = None if taken_over else why_not(layer, fmt, architecture)
    if refusal:
        refused.setdefault((fmt.name, refusal), []).append(layer.name)
        reason = f"kept, because {fmt.name} is not possible: {refusal}"
        fmt = _or_as_stored(layer, "keep")
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


def _refusal_warning(names: list[str], fmt: str, refusal: str) -> str:
    shown = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    stay = "stays as it is" if len(names) == 1 else "stay as they are"
    return f"{shown}{more} {stay} instead of {fmt}: {refusal}"


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


def _ruled(layer: Layer, rule: Rule) -> WeightFormat:
    """Return the format that a rule gives a layer it matches, or its fallback."""
    fmt = get_format(rule.format)
    if rule.fallback is None or _unsuited(layer, fmt) is None:
        return fmt
    return get_format(rule.fallback)


def _unsuited(layer: Layer, fmt: WeightFormat) -> str | None:
    if layer.kind == "buffer" and fmt.name != "keep":
        return f"it holds {layer.tensor.dtype}, so it is not a weight"
    if fmt.is_quantized and layer.kind not in fmt.kinds:
        kinds = " and ".join(fmt.kinds)
        return f"its kind is {layer.kind}; ComfyUI loads {fmt.name} only for {kinds} layers"
    if fmt.is_quantized and 0 in layer.shape:
        return f"its shape is {layer.shape}, so it is empty"
    return fmt.refusal(layer.shape)


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
        elif not recipe.architectures:
            continue  # a recipe for all models has rules for layers that many models lack
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
