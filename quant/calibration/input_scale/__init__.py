"""Static activation scales: how they are chosen, read from files and written for other tools."""

from .decide import ScaleDecision, decide_scales, represented_amax
from .policy import DEFAULT_HEADROOM, DEFAULT_POLICY, InputScalePolicy, parse_policy

__all__ = [
    "DEFAULT_HEADROOM",
    "DEFAULT_POLICY",
    "InputScalePolicy",
    "ScaleDecision",
    "decide_scales",
    "parse_policy",
    "represented_amax",
]
