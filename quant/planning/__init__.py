"""Which layer gets which format: inventories, recipes, presets, plans."""

from .architectures import Architecture, detect_architecture
from .budget import Budget, parse_budget
from .gpu_formats import for_gpu
from .inventory import Inventory, Layer, inventory_of, take_inventory
from .mix import Mix, frontier, mix_plan
from .mix_options import MIX_FORMATS
from .mix_problem import MixPoint
from .overrides import DerivedRecipe
from .plan import Plan, PlannedLayer, make_plan
from .presets import Preset, get_preset, is_for_edit_2511, load_presets
from .recipe import Recipe, Rule
from .recipe_file import load_recipe, save_recipe
from .recipe_from_checkpoint import recipe_from_checkpoint
from .recipe_from_gguf import GgufMapping, recipe_from_gguf
from .recipe_from_sensitivity import recipe_from_sensitivity
from .recipe_from_statistics import recipe_from_statistics
from .rule_lines import parse_rule_line, parse_rule_lines

__all__ = [
    "MIX_FORMATS",
    "Architecture",
    "Budget",
    "DerivedRecipe",
    "GgufMapping",
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
    "is_for_edit_2511",
    "load_presets",
    "load_recipe",
    "make_plan",
    "mix_plan",
    "parse_budget",
    "parse_rule_line",
    "parse_rule_lines",
    "recipe_from_checkpoint",
    "recipe_from_gguf",
    "recipe_from_sensitivity",
    "recipe_from_statistics",
    "save_recipe",
    "take_inventory",
]
