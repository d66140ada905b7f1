"""A recipe with the formats that a generation of GPUs multiplies natively.

Presets are written for Blackwell. Other tensor cores have no NVFP4, and those before Ada no float8.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..hardware.generations import GENERATIONS, Generation
from .recipe import USER_RULE, Recipe, Rule

# Which format takes whose place, and where its shape does not fit, which one does. Formats that
# are multiplied in 16 bits anywhere stay, and those that a generation runs natively.
_Place = tuple[str, str | None]
_PLACES: Mapping[Generation, Mapping[str, _Place]] = {
    "blackwell": {"convrot_w4a4": ("nvfp4", None)},
    "ada_hopper": {"nvfp4": ("float8_e4m3fn", None), "mxfp8": ("float8_e4m3fn", None)},
    "turing_ampere": {
        "nvfp4": ("convrot_w4a4", "int8_convrot"),
        "float8_e4m3fn": ("int8_convrot", "int8_rowwise"),
        "mxfp8": ("int8_convrot", "int8_rowwise"),
    },
    "none": {},
}


def for_gpu(recipe: Recipe, generation: Generation) -> Recipe:
    """Return a recipe whose formats run natively on a generation of GPUs.

    Rules a user wrote stay as they are, and so does a recipe that needs no change. ``none``
    changes nothing: a file made on such a machine is for another.
    """
    places = _PLACES[generation]
    rules = tuple(_placed(rule, places) for rule in recipe.rules)
    default = places.get(recipe.default, (recipe.default, None))[0]
    if rules == recipe.rules and default == recipe.default:
        return recipe
    name = f"{recipe.name}, for {GENERATIONS[generation]}"
    return recipe.model_copy(update={"name": name, "rules": rules, "default": default})


def _placed(rule: Rule, places: Mapping[str, _Place]) -> Rule:
    if rule.why == USER_RULE or rule.format not in places:
        return rule
    name, fallback = places[rule.format]
    return rule.model_copy(update={"format": name, "fallback": fallback})
