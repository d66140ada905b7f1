"""Static input scales: choose them, read them from files, and write them for other tools."""

from .decide import ScaleDecision, decide_scales, represented_amax
from .policy import DEFAULT_HEADROOM, DEFAULT_POLICY, InputScalePolicy, parse_policy
from .scaled_input import scaled_input_ratio

__all__ = [
    "DEFAULT_HEADROOM",
    "DEFAULT_POLICY",
    "InputScalePolicy",
    "ScaleDecision",
    "decide_scales",
    "parse_policy",
    "represented_amax",
    "scaled_input_ratio",
]
