"""The model, the recipe and the plan that a command's options describe."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

import torch

from ..errors import RecipeError, UsageError
from ..hardware.generations import GPU_NAMES
from ..hardware.machine import pick_device, this_generation
from ..planning import (
    Inventory,
    Plan,
    Preset,
    Recipe,
    Rule,
    detect_architecture,
    for_gpu,
    get_preset,
    load_recipe,
    make_plan,
    parse_rule_line,
)
from ..planning.presets import preset_for
from ..sources import TensorSource, open_source
from .options import Edit, wrong_usage
from .paths import require_not_read

_AUTO = "auto"
# What the name of a setting looks like; patterns of layer names have dots or wildcards.
_SETTING_NAME = re.compile(r"\w+")


def chosen_source(options: argparse.Namespace) -> TensorSource:
    """Open the source, completed if asked for; no output may be one of its files.

    The recipe decides which model it is where the weights of two look alike.
    """
    choice = getattr(options, "recipe", None)
    known = choice is not None and choice.text != _AUTO
    meant_for = chosen_recipe(options).architectures if known else ()
    source = open_source(
        options.source, options.complete_from, meant_for=meant_for, layout=options.layout
    )
    try:
        require_not_read(options, source.paths)
    except BaseException:
        source.close()
        raise
    return source


def chosen_device(options: argparse.Namespace) -> torch.device:
    """Return where this rank computes; a device that is not there is wrong usage."""
    try:
        return options.ranks.device(pick_device(options.device))
    except ValueError as error:
        raise UsageError(str(error)) from error


def chosen_plan(options: argparse.Namespace, inventory: Inventory) -> Plan:
    """Resolve the chosen recipe against a model."""
    recipe = chosen_recipe(options, inventory)
    return make_plan(recipe, inventory, any_architecture=options.any_architecture)


def chosen_recipe(options: argparse.Namespace, inventory: Inventory | None = None) -> Recipe:
    """Build the recipe that the options describe.

    Raises:
        UsageError: there is none, or something is wrong with it.
    """
    with wrong_usage():
        recipe, rules = base_recipe(options, inventory)
        return edited(recipe, options, rules)


def base_recipe(
    options: argparse.Namespace, inventory: Inventory | None = None
) -> tuple[Recipe, list[Rule]]:
    """Return the chosen preset with its settings, or the recipe file; and the rules to add to it.

    Raises:
        RecipeError: there is none, or something is wrong with it.
    """
    if options.recipe is None:
        raise RecipeError("give --preset NAME or --recipe FILE ('nvfp4 recipe list' lists presets)")
    if options.recipe.file:
        return load_recipe(options.recipe.file.path), rules_only(options.edits)
    preset = _preset(options.recipe.text, inventory)
    settings, rules = {}, []
    for edit in options.edits:
        if _is_setting(edit, preset):
            settings[edit.name] = edit.text.partition("=")[2].strip()
        else:
            rules.append(_rule(edit, preset))
    return preset.build(settings), rules


def rules_only(edits: Sequence[Edit]) -> list[Rule]:
    """Read edits of a recipe that has no settings.

    Raises:
        RecipeError: one is not a rule.
    """
    for edit in edits:
        if _is_setting(edit, None):
            raise RecipeError(
                f"--setting {edit.text}: only presets have settings; a recipe is changed by rules, "
                "e.g. --set 'blocks.*.ffn.2=bf16'"
            )
    return [parse_rule_line(edit.text) for edit in edits]


def edited(recipe: Recipe, options: argparse.Namespace, rules: Sequence[Rule]) -> Recipe:
    """Return a recipe for the chosen GPU, with these rules and the numbers of the options.

    Raises:
        RecipeError: one of the numbers is wrong.
    """
    recipe = recipe.for_comfyui(options.comfyui)
    if options.gpu:
        recipe = for_gpu(recipe, GPU_NAMES.get(options.gpu) or this_generation())
    recipe = recipe.with_rules(rules)
    if "rounding" not in options:  # a command that leaves the numbers to the recipe
        return recipe
    return recipe.with_numbers(options.rounding, options.input_scale)


def _preset(name: str, inventory: Inventory | None) -> Preset:
    if name != _AUTO:
        try:
            return get_preset(name)
        except RecipeError as error:
            raise RecipeError(f"{error}; there is no file of that name either") from error
    if inventory is None:
        raise RecipeError(
            "'auto' chooses a preset by the model and needs a model; give the name of a preset"
        )
    return preset_for(detect_architecture(inventory))


def _is_setting(edit: Edit, preset: Preset | None) -> bool:
    """Tell settings from rules: by the preset's names, or as the user spelled the option."""
    if preset is not None and any(setting.name == edit.name for setting in preset.settings):
        return True
    looks_like_one = bool(_SETTING_NAME.fullmatch(edit.name)) or "=" not in edit.text
    return edit.spelling == "--setting" and looks_like_one


def _rule(edit: Edit, preset: Preset) -> Rule:
    """Read a rule; where it looks like a setting that the preset lacks, name those it has."""
    try:
        return parse_rule_line(edit.text)
    except RecipeError as error:
        if not _SETTING_NAME.fullmatch(edit.name):
            raise
        settings = ", ".join(setting.name for setting in preset.settings) or "none"
        raise RecipeError(f"{error}; the settings of preset {preset.name}: {settings}") from error
