"""The errors of a model: of all samples together, and of the median sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fidelity_models import Subject


def subject_with(reference: torch.Tensor) -> Subject:
    missing: Any = None
    return Subject(missing, missing, missing, lambda: reference, reference, [])


def test_one_sample_that_takes_another_turn_decides_the_mean_and_not_the_median() -> None:
    reference = torch.ones(5, 3, 2)
    result = reference + 0.1
    result[4] = -1.0
    subject = subject_with(reference)
    assert subject.typical_error(result) == pytest.approx(0.01)
    assert subject.squared_error(result) == pytest.approx((4 * 0.01 + 4) / 5)


def test_each_sample_is_relative_to_its_own_size() -> None:
    reference = torch.tensor([[1.0], [10.0], [100.0]])
    assert subject_with(reference).typical_error(reference * 1.2) == pytest.approx(0.04)
