"""Parse rules in the short form that users type, one line per rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from .recipe import USER_RULE, Rule, validated


def parse_rule_line(line: str) -> Rule:
    """Parse ``PATTERN = FORMAT``, or ``PATTERN @ first:2 = FORMAT`` for certain blocks.

    Raises:
        RecipeError: the line lacks a part, or one of its parts is invalid.
    """
    left, equals, right = line.rpartition("=")
    if not equals or not left.strip() or not right.strip():
        raise RecipeError(f"rule {line.strip()!r} must have the form 'pattern = format'")
    pattern, _, blocks = (part.strip() for part in left.partition("@"))
    data: Mapping[str, Any] = {
        "pattern": pattern,
        "format": right.strip(),
        "blocks": blocks or None,
        "why": USER_RULE,
    }
    return validated(Rule, data, f"rule {line.strip()!r}")


def parse_rule_lines(text: str) -> tuple[Rule, ...]:
    """Parse one rule per line. Skip blank lines and lines that start with ``#``."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(parse_rule_line(line) for line in lines if line and not line.startswith("#"))
