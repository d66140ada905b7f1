"""Mixes: the formats of all layers, chosen by a measured sensitivity to fit a budget."""

from .budget import Budget, parse_budget, parse_share, with_four_bit
from .mix import Mix, frontier, mix_plan
from .options import MIX_FORMATS
from .problem import MixPoint
from .rivals import MOST_RIVALS, rival_mixes

__all__ = [
    "MIX_FORMATS",
    "MOST_RIVALS",
    "Budget",
    "Mix",
    "MixPoint",
    "frontier",
    "mix_plan",
    "parse_budget",
    "parse_share",
    "rival_mixes",
    "with_four_bit",
]
