"""Recipes: validated data with ordered rules that decide which layer gets which format."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from math import prod
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_validator,
)

from ..calibration.input_scale import (
    DEFAULT_HEADROOM,
    DEFAULT_POLICY,
    InputScalePolicy,
)
from ..errors import RecipeError
from ..formats import get_format
from ..hardware.comfyui import Version, newest, parse_version
from ..hardware.generations import Generation
from ..rounding import DEFAULT_ROUNDING
from .bounded_regex import bounded
from .layers import BlockPosition, Layer
from .recipe_fields import (
    SCHEMA_VERSION,
    Blocks,
    ComfyUIVersion,
    FormatName,
    Kinds,
    Patterns,
    Roles,
    RoundingName,
    WrittenPolicy,
    as_tuple,
    require_version,
)

#: The ``why`` of rules that a user wrote. Such a rule must match a layer, and nothing rewrites it.
USER_RULE = "your rule"
_GLOB = re.compile(r"[*?\[]")
# A derived recipe lists hundreds of layer names. Reasons and warnings shorten such a list.
_MOST_PATTERNS, _SHOWN_PATTERNS = 8, 2


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(_Data):
    """One rule: layers that match all of its conditions get its format."""

    pattern: Patterns = Field(
        default="*",
        description="One or several globs over whole layer names (* crosses dots), or a regular "
        "expression after re:. A layer matches if any of them does.",
    )
    kinds: Kinds | None = Field(
        default=None,
        description="Kinds of layers the rule applies to. Default: Linear layers for a quantized "
        "format, all kinds for an unquantized one.",
    )
    roles: Roles | None = Field(
        default=None,
        description="What Linear layers the rule applies to do: modulation (shift, scale and gate "
        "from the time), adapter (bridges from other models, refiners, encoders), embedder, gate "
        "(gates, routers, bottlenecks) or expert (of a mixture of experts). Default: any layer.",
    )
    blocks: Blocks | None = Field(
        default=None,
        description="any, first:N, last:N, N or N-M (indices from 0): where a layer must be in a "
        "list of blocks of the model. Default: anywhere, inside blocks or not.",
    )
    min_size: int = Field(
        default=0, ge=0, description="The smallest number of weights a layer must have."
    )
    format: FormatName = Field(description="The format of the layers.")
    fallback: Annotated[FormatName | None, BeforeValidator(lambda name: name or None)] = Field(
        default=None,
        description="The format of layers whose shape the format cannot store. Default: the "
        "smallest format after it that can.",
    )
    why: str = Field(default="", description="The reason, shown beside the rule.")
    optional: bool = Field(
        default=False,
        description="Whether a model may lack layers that the rule names. Otherwise a name without "
        "globs is an error, and a rule that matches nothing is a warning.",
    )

    def matches(self, layer: Layer) -> bool:
        """Whether this rule decides the layer's format."""
        return (
            self._matches_kind(layer)
            and (self.roles is None or layer.role in self.roles)
            and self._matches_block(layer.block)
            and layer_size(layer) >= self.min_size
            and self.matches_name(layer.name)
        )

    def matches_name(self, name: str) -> bool:
        """Whether any of the patterns matches a layer name."""
        return self._pattern_of(name) is not None

    def _pattern_of(self, name: str) -> str | None:
        """Return the first pattern that matches a layer name."""
        for pattern in as_tuple(self.pattern):
            if pattern.startswith("re:"):
                if bounded(pattern[3:]).matches(name):
                    return pattern
            elif _matches_glob(name, pattern):
                return pattern
        return None

    def layer_names(self) -> list[str]:
        """Return the patterns that name exactly one layer."""
        return [
            pattern
            for pattern in as_tuple(self.pattern)
            if not pattern.startswith("re:") and not _GLOB.search(pattern)
        ]

    def _matches_kind(self, layer: Layer) -> bool:
        if self.kinds is not None:
            return layer.kind in self.kinds
        return layer.kind == "linear" or not get_format(self.format).is_quantized

    def _matches_block(self, block: BlockPosition | None) -> bool:
        if self.blocks is None:
            return True
        if block is None:
            return False
        if self.blocks == "any":
            return True
        if self.blocks.startswith("first:"):
            return block.index < int(self.blocks[6:])
        if self.blocks.startswith("last:"):
            return block.index >= block.count - int(self.blocks[5:])
        first, _, last = self.blocks.partition("-")
        return int(first) <= block.index <= int(last or first)

    def describe(self, name: str | None = None) -> str:
        """Return the rule in one line. With ``name``, show only the pattern that matches it."""
        decisive = None if name is None else self._pattern_of(name)
        patterns = as_tuple(decisive or self.pattern)
        text = ", ".join(patterns)
        if len(patterns) > _MOST_PATTERNS:
            shown = ", ".join(patterns[:_SHOWN_PATTERNS])
            text = f"{shown} and {len(patterns) - _SHOWN_PATTERNS} more"
        if self.roles:
            text += f" that is {' or '.join(self.roles)}"
        if self.blocks:
            text += f" in {self.blocks} blocks" if self.blocks == "any" else f" in {self.blocks}"
        text += f" = {self.format}" + (f", else {self.fallback}" if self.fallback else "")
        return f"{text} ({self.why})" if self.why else text


def _add_schema_property(schema: dict[str, Any]) -> None:
    """Allow files to name the schema that they follow."""
    schema["properties"]["$schema"] = {"type": "string", "description": "This schema."}


class Recipe(_Data):
    """Ordered rules, the rounding, and the input scales.

    The first rule that matches a layer decides its format; the default decides the rest.
    """

    version: Annotated[int, AfterValidator(require_version)] = Field(
        default=SCHEMA_VERSION, description="The version of this layout."
    )
    name: str = Field(default="custom", description="Shown in reports and messages.")
    description: str = Field(default="", description="What the recipe is for, in a sentence.")
    architectures: tuple[str, ...] = Field(
        default=(), description="Ids of the architectures it is written for; empty: any."
    )
    rules: tuple[Rule, ...] = Field(
        default=(), description="The first rule that matches a layer decides its format."
    )
    default: FormatName = Field(
        default="keep", description="The format of layers that no rule matches."
    )
    rounding: RoundingName = Field(
        default=DEFAULT_ROUNDING, description="How the codes of the weights are chosen."
    )
    headroom: float = Field(
        default=DEFAULT_HEADROOM,
        le=1e6,
        ge=1,
        allow_inf_nan=False,
        description="Multiplier of the calibrated amax, percentile or measured range.",
    )
    input_scale: WrittenPolicy = Field(
        default=DEFAULT_POLICY,
        validate_default=True,  # the headroom goes into it
        json_schema_extra={"default": DEFAULT_POLICY.text},
        description="The static activation scales: amax, p99.9, dynamic, fixed=VALUE or file=PATH.",
    )
    bias_correction: bool = Field(
        default=True,
        description="Correct biases for the mean error of weights and inputs, where a calibration "
        "with Hessians knows it and held-out inputs confirm the gain.",
    )

    auto: bool = Field(
        default=False,
        description="Whether the rules of the preset for the model follow these rules.",
    )
    comfyui: ComfyUIVersion = Field(
        default="",
        description="The oldest ComfyUI that must load the checkpoint, such as 0.33. Formats that "
        "it does not load are refused. Default: the oldest that the pack supports.",
    )
    gpu: Generation | None = Field(
        default=None,
        description="The GPUs that the rules of that preset are adapted to. Default: as the preset "
        "says.",
    )

    model_config = ConfigDict(
        title="NVFP4 Foundry recipe",
        json_schema_extra=_add_schema_property,
    )

    @model_validator(mode="before")
    @classmethod
    def _without_schema(cls, data: Any) -> Any:
        """Ignore the schema that a file names for editors."""
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if key != "$schema"}
        return data

    @field_serializer("input_scale")
    def _policy_text(self, policy: InputScalePolicy) -> str:
        """Write the policy with its headroom only if that is not the recipe's."""
        return policy.text if policy.headroom == self.headroom else str(policy)

    def formats(self) -> tuple[str, ...]:
        """Return the formats that layers may get, each once, in the order of the rules."""
        named = [name for rule in self.rules for name in (rule.format, rule.fallback) if name]
        return tuple(dict.fromkeys((*named, self.default)))

    @property
    def oldest_comfyui(self) -> Version:
        """The oldest ComfyUI that must load the checkpoint."""
        return newest([parse_version(self.comfyui) if self.comfyui else None])

    def for_comfyui(self, version: str | None) -> Recipe:
        """Return this recipe for another oldest ComfyUI; None or empty keeps its own.

        Raises:
            RecipeError: the text is no version, or one that the pack does not support.
        """
        if not version:
            return self
        data = {**self.model_dump(), "comfyui": version}
        return validated(Recipe, data, f"recipe {self.name}")

    def with_rules(self, rules: Iterable[Rule]) -> Recipe:
        """Return this recipe with ``rules`` before its own, so that they take precedence."""
        return self.model_copy(update={"rules": (*rules, *self.rules)})

    def with_numbers(
        self,
        rounding: str | None = None,
        input_scale: InputScalePolicy | str | None = None,
    ) -> Recipe:
        """Return this recipe with another rounding or input scale; None keeps its own.

        Raises:
            RecipeError: a value is invalid.
        """
        given = {"rounding": rounding, "input_scale": input_scale}
        changes = {key: value for key, value in given.items() if value is not None}
        return validated(Recipe, {**self.model_dump(), **changes}, f"recipe {self.name}")

    def to_json(self) -> str:
        """Return the recipe as indented JSON, defaults included."""
        return self.model_dump_json(indent=2)


def validated(model: type[Any], data: Any, origin: str) -> Any:
    """Validate ``data`` as ``model``.

    Raises:
        RecipeError: the data is invalid. The message names ``origin`` and each wrong field.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(p) for p in e['loc']) or 'recipe'}: "
            f"{e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise RecipeError(f"{origin}: {problems}") from None


def layer_size(layer: Layer) -> int:
    """Return the number of weights of a layer."""
    return prod(layer.shape)


def _matches_glob(name: str, pattern: str) -> bool:
    """Whether a glob matches a name. Plain names are compared directly, because globs are slow."""
    return fnmatchcase(name, pattern) if _GLOB.search(pattern) else name == pattern
