"""The recipe and the plan that a command's options describe."""

from __future__ import annotations

import argparse

from ..errors import RecipeError, UsageError
from ..format_support import GPU_NAMES
from ..hardware import this_generation
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
        if options.recipe:
            if options.setting:
                raise RecipeError("--setting belongs to presets; edit the recipe file instead")
            recipe = load_recipe(options.recipe)
        elif options.preset:
            name = options.preset
            if name == "auto" and inventory is not None:
                name = preset_for(detect_architecture(inventory)).name
            recipe = get_preset(name).build(dict(_split_setting(s) for s in options.setting))
        else:
            raise RecipeError("give --preset NAME or --recipe FILE ('nvfp4 recipe' lists presets)")
        if options.gpu:
            known = GPU_NAMES.get(options.gpu)
            recipe = for_gpu(recipe, known or this_generation())
        recipe = recipe.with_rules(parse_rule_line(line) for line in options.rules)
        return recipe.with_numbers(options.rounding, options.input_scale, options.headroom)
    except RecipeError as error:
        raise UsageError(str(error)) from error


def _split_setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"--setting {text!r} is not of the form name=value")
    return name.strip(), value.strip()
