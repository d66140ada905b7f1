"""Recipes: ordered rules that say which layer gets which format. Validated data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from math import prod
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ..calibration.input_scale.policy import parse_policy
from ..errors import CalibrationError, FormatError, RecipeError
from ..formats import get_format
from ..rounding import DEFAULT_ROUNDING, get_rounding
from .inventory import KINDS, BlockPosition, Layer

SCHEMA_VERSION = 1
#: The ``why`` of rules a user wrote: they must match something, and nothing rewrites them.
USER_RULE = "your rule"
_GLOB = re.compile(r"[*?\[]")
# A recipe made by layer names lists hundreds; not every reason and warning has to.
_MOST_PATTERNS, _SHOWN_PATTERNS = 8, 2
#: What `Rule.blocks` may be.
BLOCKS = re.compile(r"any|first:\d+|last:\d+|\d+(-\d+)?")


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(_Data):
    """Layers that match every condition get ``format``.

    Attributes:
        pattern: one or several globs over whole layer names (``*`` crosses dots), or a regular
            expression after ``re:``. Any of them matching is enough.
        kinds: layer kinds it applies to. Default: Linears for a quantized format, all kinds for
            an unquantized one.
        blocks: ``any`` block, ``first:N``, ``last:N``, ``N`` or ``N-M`` (indices), resolved
            within each list of blocks of the model at hand. Default: blocks or not.
        min_size: smallest number of weights.
        format: a format name.
        fallback: another for layers whose shape ``format`` does not admit; without one they stay
            as they are.
        why: shown to the user beside the rule.
        optional: whether a model may lack layers that are named without globs, as a preset's
            rules allow. Otherwise such a name is an error.
    """

    pattern: str | tuple[str, ...] = "*"
    kinds: tuple[str, ...] | None = None
    blocks: str | None = None
    min_size: int = Field(default=0, ge=0)
    format: str
    fallback: str | None = None
    why: str = ""
    optional: bool = False

    @field_validator("pattern")
    @classmethod
    def _compilable(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError("an empty pattern matches nothing")
        for pattern in _as_tuple(value):
            if not pattern:
                raise ValueError("an empty pattern matches nothing")
            if pattern.startswith("re:"):
                try:
                    re.compile(pattern[3:])
                except re.error as error:
                    raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return value

    @field_validator("format", "fallback")
    @classmethod
    def _known_format(cls, value: str | None) -> str | None:
        try:
            get_format(value or "keep")
        except FormatError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("kinds")
    @classmethod
    def _known_kinds(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not value:
            raise ValueError("an empty list of kinds matches nothing; leave it out")
        for kind in value or ():
            if kind not in KINDS:
                raise ValueError(f"unknown kind {kind!r}; the kinds are {', '.join(KINDS)}")
        return value

    @field_validator("blocks")
    @classmethod
    def _known_blocks(cls, value: str | None) -> str | None:
        if value is None:
            return value
        first, _, last = value.partition("-")
        if not BLOCKS.fullmatch(value) or (last and int(first) > int(last)):
            raise ValueError(f"{value!r} is not any, first:N, last:N, N or N-M with N up to M")
        return value

    def matches(self, layer: Layer) -> bool:
        """Whether this rule decides the layer's format."""
        return (
            self._matches_kind(layer)
            and self._matches_block(layer.block)
            and layer_size(layer) >= self.min_size
            and self.matches_name(layer.name)
        )

    def matches_name(self, name: str) -> bool:
        """Whether any of the patterns matches a layer name."""
        return self._pattern_of(name) is not None

    def _pattern_of(self, name: str) -> str | None:
        """Return the first pattern that matches a layer name."""
        for pattern in _as_tuple(self.pattern):
            if pattern.startswith("re:"):
                if re.fullmatch(pattern[3:], name):
                    return pattern
            elif _matches_glob(name, pattern):
                return pattern
        return None

    def layer_names(self) -> list[str]:
        """Return the patterns that name one layer each."""
        return [
            pattern
            for pattern in _as_tuple(self.pattern)
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
        """Return the rule in one line; of its patterns only the one that decides layer ``name``."""
        decisive = None if name is None else self._pattern_of(name)
        patterns = _as_tuple(decisive or self.pattern)
        text = ", ".join(patterns)
        if len(patterns) > _MOST_PATTERNS:
            shown = ", ".join(patterns[:_SHOWN_PATTERNS])
            text = f"{shown} and {len(patterns) - _SHOWN_PATTERNS} more"
        if self.blocks:
            text += f" in {self.blocks} blocks" if self.blocks == "any" else f" in {self.blocks}"
        text += f" = {self.format}" + (f", else {self.fallback}" if self.fallback else "")
        return f"{text} ({self.why})" if self.why else text


class Recipe(_Data):
    """Ordered rules and the settings of the numbers.

    The first rule that matches a layer decides; ``default`` decides the rest.

    Attributes:
        version: of this layout.
        name: shown in reports, and in messages about this recipe.
        description: for people.
        architectures: ids this recipe is written for (see ``architectures.py``); empty: any.
        rules: the first that matches a layer decides its format.
        default: the format of layers that no rule matches.
        rounding: how weight scales are chosen (see ``rounding``).
        input_scale: ``amax``, ``p99.9``, ``dynamic``, ``fixed=VALUE`` or ``file=PATH``.
        headroom: multiplier of the calibrated amax (or of the percentile).
        bias_correction: correct biases for the mean error of weights and inputs, where second
            moments were collected and held-out inputs say that it helps.
    """

    version: int = SCHEMA_VERSION
    name: str = "custom"
    description: str = ""
    architectures: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    default: str = "keep"
    rounding: str = DEFAULT_ROUNDING
    input_scale: str = "amax"
    headroom: float = Field(default=4.0, le=1e6, ge=1, allow_inf_nan=False)
    bias_correction: bool = True

    @model_validator(mode="before")
    @classmethod
    def _without_schema(cls, data: Any) -> Any:
        """Let a file name the schema that an editor checks it by."""
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if key != "$schema"}
        return data

    @field_validator("default")
    @classmethod
    def _known_default(cls, value: str) -> str:
        try:
            get_format(value)
        except FormatError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("rounding")
    @classmethod
    def _known_rounding(cls, value: str) -> str:
        try:
            get_rounding(value)
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("input_scale")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        try:
            parse_policy(value)
        except CalibrationError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("version")
    @classmethod
    def _supported(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"recipe versions start at 1, not {value}")
        if value > SCHEMA_VERSION:
            raise ValueError(f"recipe version {value} is newer than this tool; update it")
        return value

    def formats(self) -> tuple[str, ...]:
        """Return the formats layers may get, in the order of the rules, each once."""
        named = [name for rule in self.rules for name in (rule.format, rule.fallback) if name]
        return tuple(dict.fromkeys((*named, self.default)))

    def with_rules(self, rules: Iterable[Rule]) -> Recipe:
        """Return this recipe with rules put before its own, so that they win."""
        return self.model_copy(update={"rules": (*rules, *self.rules)})

    def with_numbers(
        self,
        rounding: str | None = None,
        input_scale: str | None = None,
        headroom: float | None = None,
    ) -> Recipe:
        """Return this recipe with other settings of the numbers; None keeps its own."""
        given = {"rounding": rounding, "input_scale": input_scale, "headroom": headroom}
        changes = {key: value for key, value in given.items() if value is not None}
        return validated(Recipe, {**self.model_dump(), **changes}, f"recipe {self.name}")

    def to_json(self) -> str:
        """Return the recipe as indented JSON, defaults included."""
        return self.model_dump_json(indent=2)


def validated(model: type[Any], data: Any, origin: str) -> Any:
    """Validate ``data`` as ``model``; errors name ``origin`` and the field.

    Raises:
        RecipeError: one line per problem.
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
    """Compare plain names as they are: a recipe may list thousands, and globs are slow."""
    return fnmatchcase(name, pattern) if _GLOB.search(pattern) else name == pattern


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
