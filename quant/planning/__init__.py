"""Which layer gets which format: inventories, recipes, presets, plans."""

from .architectures import Architecture, detect_architecture
from .budget import Budget, parse_budget
from .gpu_formats import for_gpu
from .inventory import Inventory, Layer, inventory_of, take_inventory
from .mix import Mix, frontier, mix_plan
from .mix_options import MIX_FORMATS
from .mix_problem import MixPoint
from .plan import Plan, PlannedLayer, make_plan
from .presets import Preset, get_preset, load_presets
from .recipe import Recipe, Rule, load_recipe, parse_rule_line, parse_rule_lines

__all__ = [
    "MIX_FORMATS",
    "Architecture",
    "Budget",
    "Inventory",
    "Layer",
    "Mix",
    "MixPoint",
    "Plan",
    "PlannedLayer",
    "Preset",
    "Recipe",
    "Rule",
    "detect_architecture",
    "for_gpu",
    "frontier",
    "get_preset",
    "inventory_of",
    "load_presets",
    "load_recipe",
    "make_plan",
    "mix_plan",
    "parse_budget",
    "parse_rule_line",
    "parse_rule_lines",
    "take_inventory",
]
