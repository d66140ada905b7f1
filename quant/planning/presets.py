"""Presets: recipes with settings, one JSON file per model family."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ..errors import RecipeError, Remedy
from .architectures import Architecture
from .gpu_formats import for_gpu
from .loadable import target_of
from .recipe import Recipe, validated

#: The name of the preset that is chosen by the model.
AUTO = "auto"

# ComfyUI imports the pack under any name, so the folder is found relative to this file.
_FOLDER = Path(__file__).parents[2] / "presets"


class Setting(BaseModel):
    """One setting of a preset: a whole number in a range, or a choice of formats."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    label: str
    tooltip: str
    type: Literal["int", "choice"]
    default: int | str
    min: int = 0
    max: int = 64
    choices: tuple[str, ...] = ()

    def check(self, value: Any, preset: str) -> int | str:
        """Return the value of the setting, with text converted to a number where needed.

        Raises:
            RecipeError: the setting does not allow this value.
        """
        if self.type == "int":
            if isinstance(value, str):
                with contextlib.suppress(ValueError):
                    value = int(value)
            if type(value) is int and self.min <= value <= self.max:
                return value
            allowed = f"a whole number from {self.min} to {self.max}"
        else:
            if value in self.choices:
                return str(value)
            allowed = f"one of {', '.join(self.choices)}"
        raise RecipeError(f"preset {preset}: {self.name} must be {allowed}, not {value!r}")


class Preset(BaseModel):
    """A recipe template. Rules refer to settings as ``{name}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    description: str
    architectures: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    rules: tuple[dict[str, Any], ...]
    default: str = "keep"

    def build(self, values: Mapping[str, Any] | None = None) -> Recipe:
        """Return the recipe for these values of the settings; missing values take the default.

        Raises:
            RecipeError: a setting is unknown, or its value is not allowed.
        """
        known = {setting.name: setting for setting in self.settings}
        given = dict(values or {})
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise RecipeError(
                f"preset {self.name} has no setting {', '.join(unknown)}; "
                f"its settings are {', '.join(known) or 'none'}"
            )
        filled = {n: s.check(given.get(n, s.default), self.name) for n, s in known.items()}
        rules = [_fill(rule, filled) for rule in self.rules]
        return validated(
            Recipe,
            {
                "name": self.name,
                "description": self.description,
                "architectures": self.architectures,
                # a setting of 0 gives first:0 or last:0, which switches the rule off
                "rules": [r for r in rules if r.get("blocks") not in ("first:0", "last:0")],
                "default": self.default,
            },
            f"preset {self.name}",
        )


@lru_cache(maxsize=1)
def load_presets() -> Mapping[str, Preset]:
    """Return the presets that come with the pack, by name."""
    presets: dict[str, Preset] = {}
    for entry in sorted(_FOLDER.glob("*.json")):
        data = json.loads(entry.read_text(encoding="utf-8"))
        preset = validated(Preset, data, f"presets/{entry.name}")
        presets[preset.name] = preset
    return presets


def get_preset(name: str) -> Preset:
    """Return a preset by name.

    Raises:
        RecipeError: the name is unknown; the message lists the presets.
    """
    presets = load_presets()
    try:
        return presets[name]
    except KeyError:
        raise RecipeError(
            f"unknown preset {name!r}; the presets are {', '.join(presets)}"
        ) from None


def require_architecture(recipe: Recipe, architecture: Architecture) -> None:
    """Refuse a recipe that is written for other models.

    Raises:
        RecipeError: the message names the recognised model and the presets that fit it.
    """
    if not recipe.architectures or architecture.is_one_of(recipe.architectures):
        return
    fitting = [p.name for p in load_presets().values() if architecture.is_one_of(p.architectures)]
    anyone = [p.name for p in load_presets().values() if not p.architectures]
    better = preset_for(architecture).name
    raise RecipeError(
        f"preset {recipe.name} is for {', '.join(recipe.architectures)}, but this model is "
        f"{architecture}; use {' or '.join([*fitting, *anyone])}",
        remedy=Remedy(f"Use preset {better}", "preset", better),
    )


def _fill(rule: Mapping[str, Any], values: Mapping[str, int | str]) -> dict[str, Any]:
    """Put the values of settings into the fields of a rule that may refer to them.

    Patterns are not filled, because a regular expression may hold braces. The rules of a preset
    are optional by default, because not every model of a family has all layers that they name.
    """
    filled = {"optional": True, **rule}
    for field in ("blocks", "format", "min_size"):
        if isinstance(filled.get(field), str):
            filled[field] = filled[field].format(**values)
    return filled


def automatic_recipe() -> Recipe:
    """Return the recipe that takes its rules from the preset for the model it is applied to."""
    return Recipe(
        name=AUTO, description="The preset for the model, chosen when it is known.", auto=True
    )


def with_preset(recipe: Recipe, architecture: Architecture) -> Recipe:
    """Return an automatic recipe with the rules of the preset for a model; others unchanged."""
    if not recipe.auto:
        return recipe
    preset = preset_for(architecture).build()
    if recipe.gpu is not None:
        preset = for_gpu(preset, recipe.gpu, target_of(recipe, architecture))
    return recipe.model_copy(
        update={
            "name": preset.name,
            "description": preset.description,
            "architectures": preset.architectures,
            "rules": (*recipe.rules, *preset.rules),
            "default": preset.default,
            "auto": False,
            "gpu": None,
        }
    )


def preset_for(architecture: Architecture) -> Preset:
    """Return the preset written for an architecture, or ``smart``."""
    for preset in load_presets().values():
        if architecture.id in preset.architectures:
            return preset
    return get_preset("smart")
