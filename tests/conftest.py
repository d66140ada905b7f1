"""For all tests: the same random numbers in every run, asserts that explain, a Chromium."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest.register_assert_rewrite("tests.helpers")
settings.register_profile("seeded", derandomize=True, deadline=None)  # machines may be busy
settings.load_profile("seeded")
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # there is a worker for every core


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Begin every test with the same random state, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless Chromium, one for all tests: Playwright runs once in a process."""
    from tests.helpers.chromium import find_chromium, why_no_browser

    if reason := why_no_browser():
        pytest.skip(f"NOT TESTED IN A BROWSER: {reason}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()
