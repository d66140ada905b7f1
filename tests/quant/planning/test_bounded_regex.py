"""Regular expressions of shared recipes end, whatever they are."""

from __future__ import annotations

import re
import time

import pytest
from nvfp4_foundry.quant.errors import RecipeError
from nvfp4_foundry.quant.planning import parse_rule_lines
from nvfp4_foundry.quant.planning.bounded_regex import LONGEST_PATTERN, BoundedRegex, bounded

LONG = "blocks.12.self_attn." + "a" * 200 + "!b"
ENDLESS = ["(.*.*.*.*.*.*.*.*.*.*.*.*)!", "(a+)+!|(.|a)*!", "((.*)*)*!", r"(\w+\.?)+!"]


@pytest.mark.parametrize("pattern", ENDLESS)
def test_endless_patterns_are_refused_soon(pattern: str) -> None:
    began = time.process_time()
    try:
        assert not BoundedRegex(pattern).matches(LONG)  # the package may know a quick way
    except RecipeError as error:
        assert "takes too long" in str(error) and "fewer repetitions" in str(error)
    assert time.process_time() - began < 2


def test_an_endless_pattern_is_refused_in_a_rule() -> None:
    (rule,) = parse_rule_lines("re:(a+)+!|(.|a)*! = bf16")
    with pytest.raises(RecipeError, match="takes too long"):
        rule.matches_name(LONG)


@pytest.mark.parametrize(
    "pattern",
    [
        r"blocks\.(\d+)\.ffn\.[02]",
        r".*\.(q|k|v)",
        r"(?!head).*",
        r"(?i)BLOCKS\.\d{1,2}\..*",
        "",
        ".",
    ],
)
def test_usual_patterns_match_as_with_re(pattern: str) -> None:
    names = ["blocks.0.ffn.0", "blocks.11.self_attn.q", "head.head", "a", "", "x\ny"]
    for name in names:
        assert bounded(pattern).matches(name) == bool(re.fullmatch(pattern, name))


@pytest.mark.parametrize("pattern", ["(", "[a", "(?P<n", "a" * (LONGEST_PATTERN + 1)])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        BoundedRegex(pattern)
