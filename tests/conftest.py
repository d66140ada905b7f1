"""For all tests: the same random numbers in every run, and asserts that explain themselves."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import settings

pytest.register_assert_rewrite("tests.helpers")
settings.register_profile("seeded", derandomize=True, deadline=None)  # machines may be busy
settings.load_profile("seeded")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Begin every test with the same random state, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
