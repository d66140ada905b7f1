"""Decide which layer gets which format: inventories, recipes, presets and plans."""

from .architectures import Architecture, KnownModel, detect_architecture, known_model
from .completeness import require_whole
from .gpu_formats import for_gpu
from .inventory import Inventory, Layer, inventory_of, take_inventory
from .plan import Plan, PlannedLayer, make_plan
from .presets import Preset, automatic_recipe, get_preset, load_presets, with_preset
from .recipe import Recipe, Rule
from .recipe_file import load_recipe, save_recipe
from .rule_lines import parse_rule_line, parse_rule_lines

__all__ = [
    "Architecture",
    "Inventory",
    "KnownModel",
    "Layer",
    "Plan",
    "PlannedLayer",
    "Preset",
    "Recipe",
    "Rule",
    "automatic_recipe",
    "detect_architecture",
    "for_gpu",
    "get_preset",
    "inventory_of",
    "known_model",
    "load_presets",
    "load_recipe",
    "make_plan",
    "parse_rule_line",
    "parse_rule_lines",
    "require_whole",
    "save_recipe",
    "take_inventory",
    "with_preset",
]
