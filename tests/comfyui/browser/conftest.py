"""A Chromium that opens the page of the ComfyUI under test; skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.comfyui.browser.comfy_page import ComfyPage, Look
from tests.comfyui.comfy_server import ComfyServer
from tests.helpers.chromium import why_no_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LOOKS = (Look("classic"), Look("vue"))
OpenPage = Callable[..., ComfyPage]
_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a browser say so in one loud line instead of once per test."""
    reason = why_no_browser()
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    if reason is None or not ours:
        return
    text = f"NOT TESTED IN A BROWSER ({len(ours)} tests): {reason}"
    ours[0].add_marker(pytest.mark.skip(reason=text))
    config.hook.pytest_deselected(items=ours[1:])
    items[:] = [item for item in items if item not in ours[1:]]


@pytest.fixture(params=LOOKS, ids=str)
def look(request: pytest.FixtureRequest) -> Look:
    """Each of ComfyUI's two renderers."""
    return request.param


@pytest.fixture(scope="session")
def kept_pages(chromium: Browser) -> Iterator[dict[object, ComfyPage]]:
    """Pages that the next test with the same look goes on with, for they load slowly."""
    pages: dict[object, ComfyPage] = {}
    yield pages
    for page in pages.values():
        page.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember which tests failed: their pages do not serve again."""
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture
def open_page(
    request: pytest.FixtureRequest,
    chromium: Browser,
    server: ComfyServer,
    kept_pages: dict[object, ComfyPage],
) -> Iterator[OpenPage]:
    """Open ComfyUI's page with a look; the test fails on errors that the page reports.

    The page of an earlier test serves again, without its workflows. With ``fresh=True``, or with
    options for Playwright's context, it is a new one.
    """
    opened: list[ComfyPage] = []
    special: list[ComfyPage] = []

    def open_(look: Look, *, fresh: bool = False, **options: Any) -> ComfyPage:
        known = kept_pages.pop((server.port, look), None)
        if known is not None and (fresh or options):
            known.close()
        elif known is not None:
            known.renew()
            opened.append(known)
            return known
        opened.append(ComfyPage(chromium, server, look, **options))
        if options:
            special.append(opened[-1])
        return opened[-1]

    yield open_
    problems = [problem for page in opened for problem in page.problems]
    server.post("/interrupt", {})
    server.post("/queue", {"clear": True})
    server.wait_idle()
    for page in opened:
        key = (server.port, page.look)
        failed = bool(problems) or request.node.stash.get(_FAILED, False)
        if failed or page in special or key in kept_pages:
            page.close()
        else:
            kept_pages[key] = page
    assert not problems, "\n".join(problems)
