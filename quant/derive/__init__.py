"""Recipes derived from a GGUF, a checkpoint, a calibration or a sensitivity; and mixes."""

from .from_calibration import recipe_from_statistics
from .from_checkpoint import recipe_from_checkpoint
from .from_gguf import GgufMapping, recipe_from_gguf
from .from_sensitivity import recipe_from_sensitivity
from .mix import (
    MIX_FORMATS,
    MOST_RIVALS,
    Budget,
    Mix,
    MixPoint,
    frontier,
    mix_plan,
    parse_budget,
    parse_share,
    rival_mixes,
    with_four_bit,
)
from .overrides import DerivedRecipe

__all__ = [
    "MIX_FORMATS",
    "MOST_RIVALS",
    "Budget",
    "DerivedRecipe",
    "GgufMapping",
    "Mix",
    "MixPoint",
    "frontier",
    "mix_plan",
    "parse_budget",
    "parse_share",
    "recipe_from_checkpoint",
    "recipe_from_gguf",
    "recipe_from_sensitivity",
    "recipe_from_statistics",
    "rival_mixes",
    "with_four_bit",
]
