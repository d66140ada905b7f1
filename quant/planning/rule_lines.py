"""Rules in short form, as people type them: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from .recipe import USER_RULE, Rule, validated


def parse_rule_line(line: str) -> Rule:
    """Parse ``PATTERN = FORMAT`` (``PATTERN @ first:2 = FORMAT`` limits it to blocks).

    Raises:
        RecipeError: the line has no ``=`` or names an unknown format.
    """
    left, equals, right = line.rpartition("=")
    if not equals or not left.strip() or not right.strip():
        raise RecipeError(f"rule {line.strip()!r} is not of the form 'pattern = format'")
    pattern, _, blocks = (part.strip() for part in left.partition("@"))
    data: Mapping[str, Any] = {
        "pattern": pattern,
        "format": right.strip(),
        "blocks": blocks or None,
        "why": USER_RULE,
    }
    return validated(Rule, data, f"rule {line.strip()!r}")


def parse_rule_lines(text: str) -> tuple[Rule, ...]:
    """Parse one rule per line; blank lines and lines starting with ``#`` are skipped."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(parse_rule_line(line) for line in lines if line and not line.startswith("#"))
