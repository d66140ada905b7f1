"""Budgets: one limit each, read from text, refused with what to write instead."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nvfp4_foundry.quant.derive import Budget, parse_budget
from nvfp4_foundry.quant.derive.mix.budget import format_size
from nvfp4_foundry.quant.errors import PlanError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("4.2GB", Budget(size=4_200_000_000)),
        ("size=4.2 gb", Budget(size=4_200_000_000)),
        ("Size = 900MB", Budget(size=900_000_000)),
        ("2GiB", Budget(size=2**31)),
        ("123456 B", Budget(size=123456)),
        ("bits=5.5", Budget(bits=5.5)),
        ("error=3%", Budget(error=0.03)),
        ("error=0.03", Budget(error=0.03)),
        ("3 %", Budget(error=0.03)),
    ],
)
def test_reads(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "unit"),
        ("4.2", "unit"),
        ("size=big", "4.2GB"),
        ("size=4IB", "4.2GB"),
        (f"size={'9' * 400}GB", "larger than any"),
        ("size=0GB", "above zero"),
        ("bits=-4", "bits=5.5"),
        ("bits=nan", "bits=5.5"),
        ("bits=0", "above zero"),
        ("error=3", "error=3%"),
        ("error=much", "error=3%"),
        ("layers=4", "size=4.2GB"),
    ],
)
def test_refuses(text: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        parse_budget(text)


def test_is_exactly_one_limit() -> None:
    for given_limits in ({}, {"size": 5, "bits": 4.5}, {"error": math.nan}, {"error": math.inf}):
        with pytest.raises(PlanError):
            Budget(**given_limits)


@given(st.integers(1, 10**12))
def test_a_printed_size_is_never_smaller(count: int) -> None:
    read = parse_budget(format_size(count)).size
    assert read is not None and count <= read <= count * 1.0011 + 1
