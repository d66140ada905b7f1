"""The errors of a model: of all samples together, and of single samples in pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fidelity_models import Subject, typical_ratio


def subject_with(reference: torch.Tensor) -> Subject:
    missing: Any = None
    return Subject(missing, missing, missing, lambda: reference, reference, [])


def test_one_sample_that_takes_another_turn_decides_the_sum_and_not_the_typical_ratio() -> None:
    reference = torch.ones(5, 3, 2)
    better, turned = reference + 0.1, reference + 0.1
    turned[4] = -1.0
    subject = subject_with(reference)
    assert subject.squared_error(turned) == pytest.approx((4 * 0.01 + 4) / 5)
    own, base = (subject.errors_by_sample(result) for result in (turned, better))
    assert typical_ratio(own, base)[0] == pytest.approx(400**0.2, rel=1e-5)


def test_the_standard_error_of_equal_ratios_is_none_and_falls_with_the_samples() -> None:
    base = torch.rand(64) + 0.1
    assert typical_ratio(base * 0.5, base) == pytest.approx((0.5, 0.0), abs=1e-6)
    turns = torch.tensor([0.5, 2.0]).repeat(32)
    few, many = (typical_ratio(base[:count] * turns[:count], base[:count]) for count in (16, 64))
    assert few[0] == pytest.approx(1.0) and many[0] == pytest.approx(1.0)
    assert few[1] / many[1] == pytest.approx(2.0, rel=0.05)


def test_each_sample_is_relative_to_its_own_size() -> None:
    reference = torch.tensor([[1.0], [10.0], [100.0]])
    errors = subject_with(reference).errors_by_sample(reference * 1.2)
    torch.testing.assert_close(errors, torch.full((3,), 0.04))
