"""Static activation scales: how they are chosen, read from files and written for other tools."""

from .policy import (
    DEFAULT_HEADROOM,
    DEFAULT_POLICY,
    InputScalePolicy,
    ScaleDecision,
    decide_scales,
    parse_policy,
    represented_amax,
)

__all__ = [
    "DEFAULT_HEADROOM",
    "DEFAULT_POLICY",
    "InputScalePolicy",
    "ScaleDecision",
    "decide_scales",
    "parse_policy",
    "represented_amax",
]
