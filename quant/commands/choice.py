"""The recipe and the plan that a command's options describe."""

from __future__ import annotations

import argparse

from ..errors import RecipeError, UsageError
from ..hardware.generations import GPU_NAMES
from ..hardware.machine import this_generation
from ..planning import (
    Inventory,
    Plan,
    Recipe,
    detect_architecture,
    for_gpu,
    get_preset,
    load_recipe,
    make_plan,
    parse_rule_line,
)
from ..planning.presets import preset_for


def chosen_plan(options: argparse.Namespace, inventory: Inventory) -> Plan:
    """Resolve the chosen recipe against a model."""
    recipe = chosen_recipe(options, inventory)
    return make_plan(recipe, inventory, any_architecture=options.any_architecture)


def chosen_recipe(options: argparse.Namespace, inventory: Inventory | None) -> Recipe:
    """Build the recipe the options describe; anything wrong with it is bad usage."""
    try:
        return edited(base_recipe(options, inventory), options)
    except RecipeError as error:
        raise UsageError(str(error)) from error


def base_recipe(
    options: argparse.Namespace, inventory: Inventory | None, otherwise: str | None = None
) -> Recipe:
    """Return the recipe of ``--recipe`` or ``--preset``, or the preset named ``otherwise``.

    Raises:
        RecipeError: there is none, or it is wrong.
    """
    if options.recipe:
        if options.setting:
            raise RecipeError("--setting belongs to presets; edit the recipe file instead")
        return load_recipe(options.recipe)
    name = options.preset or otherwise
    if not name:
        raise RecipeError("give --preset NAME or --recipe FILE ('nvfp4 recipe' lists presets)")
    if name == "auto":
        if inventory is None:
            raise RecipeError("--preset auto needs a model; it works with plan and quantize")
        name = preset_for(detect_architecture(inventory)).name
    return get_preset(name).build(dict(_split_setting(s) for s in options.setting))


def edited(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """Return a recipe for the GPU, with the rules and numbers given beside it.

    Raises:
        RecipeError: a rule or number is wrong.
    """
    if options.gpu:
        recipe = for_gpu(recipe, GPU_NAMES.get(options.gpu) or this_generation())
    recipe = recipe.with_rules(parse_rule_line(line) for line in options.rules)
    return recipe.with_numbers(options.rounding, options.input_scale, options.headroom)


def _split_setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"--setting {text!r} is not of the form name=value")
    return name.strip(), value.strip()
