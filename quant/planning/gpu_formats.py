"""Adapt a recipe to the formats that a generation of GPUs multiplies natively.

Presets are written for Blackwell. Older tensor cores have no NVFP4, and cores before Ada have no
float8.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..hardware.comfyui import Version
from ..hardware.generations import GENERATIONS, Generation
from ..hardware.usual_formats import ASYM, ASYM_SINCE
from .recipe import USER_RULE, Recipe, Rule

# By the format of a rule: the format that replaces it, and the fallback for layers whose shape
# the replacement cannot store. Formats that are not listed stay. Either the generation runs them
# natively, or every GPU multiplies them in 16 bits.
_Place = tuple[str, str | None]
_NVFP4 = ("nvfp4", "nvfp4_smooth")
_EIGHT_BIT_INTEGERS: Mapping[str, _Place] = {
    "float8_e4m3fn": ("int8_convrot", "int8_rowwise"),
    "mxfp8": ("int8_convrot", "int8_rowwise"),
}
_PLACES: Mapping[Generation, Mapping[str, _Place]] = {
    "blackwell": {"convrot_w4a4": ("nvfp4", None)},
    "ada_hopper": {
        **dict.fromkeys(_NVFP4, ("float8_e4m3fn", None)),
        "mxfp8": ("float8_e4m3fn", None),
    },
    "ampere": {**dict.fromkeys(_NVFP4, ("convrot_w4a4", "int8_convrot")), **_EIGHT_BIT_INTEGERS},
    "turing_ampere": {
        **dict.fromkeys(_NVFP4, ("convrot_w4a4", "int8_convrot")),
        ASYM: ("convrot_w4a8", "int8_convrot"),
        **_EIGHT_BIT_INTEGERS,
    },
    "none": {},
}
# What changes where every ComfyUI in question loads `ASYM`: it is as small as NVFP4 and more
# precise, and tensor cores from Ampere on multiply it (comfy-kitchen: MIN_SM_VERSION of
# AsymW4A8Int8Layout).
_NEWER_PLACES: Mapping[Generation, Mapping[str, _Place]] = {
    "ada_hopper": dict.fromkeys(_NVFP4, (ASYM, "float8_e4m3fn")),
    "ampere": dict.fromkeys(_NVFP4, (ASYM, "int8_convrot")),
}


def for_gpu(recipe: Recipe, generation: Generation, target: Version | None = None) -> Recipe:
    """Return a recipe whose formats run natively on a generation of GPUs.

    Formats that the oldest ComfyUI in question does not load are not used. It is ``target``, or
    the recipe's.

    Rules that a user wrote do not change. A recipe with an automatic preset remembers the
    generation until the preset is known. ``none`` changes nothing, because a file made on a
    machine without a supported GPU is meant for another machine.
    """
    if recipe.auto:
        return recipe.model_copy(update={"gpu": generation})
    places = dict(_PLACES[generation])
    if (target or recipe.oldest_comfyui) >= ASYM_SINCE:
        places |= _NEWER_PLACES.get(generation, {})
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
