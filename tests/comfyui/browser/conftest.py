"""A Chromium that opens the page of the ComfyUI under test; skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.comfyui.browser.comfy_page import ComfyPage, Look
from tests.comfyui.comfy_server import ComfyServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LOOKS = (Look("classic"), Look("vue"))
OpenPage = Callable[..., ComfyPage]


def find_chromium() -> str | None:
    """Path of the Chromium to test with, or None."""
    named = os.environ.get("PLAYWRIGHT_CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser")


def _why_not() -> str | None:
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "Playwright is not installed: pip install -e '.[test-browser]'"
    return None if find_chromium() else "no Chromium found, set PLAYWRIGHT_CHROMIUM to its program"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a browser say so in one loud line instead of once per test."""
    reason = _why_not()
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    if reason is None or not ours:
        return
    text = f"NOT TESTED IN A BROWSER ({len(ours)} tests): {reason}"
    ours[0].add_marker(pytest.mark.skip(reason=text))
    config.hook.pytest_deselected(items=ours[1:])
    items[:] = [item for item in items if item not in ours[1:]]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=LOOKS, ids=str)
def look(request: pytest.FixtureRequest) -> Look:
    """Each of ComfyUI's two renderers."""
    return request.param


@pytest.fixture
def open_page(chromium: Browser, server: ComfyServer) -> Iterator[OpenPage]:
    """Open ComfyUI's page with a look; the test fails on errors that the page reports."""
    opened: list[ComfyPage] = []

    def open_(look: Look, **options: Any) -> ComfyPage:
        opened.append(ComfyPage(chromium, server, look, **options))
        return opened[-1]

    yield open_
    problems = [problem for page in opened for problem in page.problems]
    for page in opened:
        page.close()
    server.post("/interrupt", {})
    server.post("/queue", {"clear": True})
    server.wait_idle()
    assert not problems, "\n".join(problems)
